"""`medmoe sign`: sign a checkpoint. `medmoe verify`: verify a signed one."""

from pathlib import Path
from typing import Annotated

import typer

from medmoe.model.signing.signature import generate_key, sign_directory, verify_directory
from medmoe.model.signing.signed_files import LIST_FILE, SIGNATURE_FILE


def sign(
    key: Annotated[Path, typer.Option(help="Ed25519 private key in PEM, as --generate makes it.")],
    checkpoint: Annotated[Path | None, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory.")] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Make a key: write --key and, beside it, the public key with .pub.")
    ] = False,
) -> None:
    """Sign every file of a checkpoint; `medmoe serve` verifies it where MEDMOE_MODEL_PUBLIC_KEY is set.

    A file that is written later, calibration.json say, needs another signature.
    """
    if generate == (checkpoint is not None):
        raise typer.BadParameter("give a checkpoint directory to sign, or --generate")
    if checkpoint is None:
        typer.echo(f"public key: {generate_key(key)}; keep {key} off the machines that serve")
        return
    typer.echo(f"signed {sign_directory(checkpoint, key)} files: {LIST_FILE} and {SIGNATURE_FILE}")


def verify(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory.")],
    public_key: Annotated[Path, typer.Option(help="Ed25519 public key in PEM.")],
) -> None:
    """Verify the signature of a checkpoint and every file in it; the exit status is 1 if anything differs."""
    typer.echo(f"the signature and {verify_directory(checkpoint, public_key)} files are right")
