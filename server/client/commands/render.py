"""`medmoe render`: write images as a service shows them to the model."""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from medmoe.client.async_client import AsyncClient
from medmoe.client.commands.connection import ServiceOptions, api_key, reported, usage_errors, with_option_groups
from medmoe.client.commands.images import AllowUniformOption, FrameOption, WindowOption, require_png, write_png
from medmoe.client.commands.request_options import RequestOptions
from medmoe.client.commands.terminal import note, note_progress, safe
from medmoe.client.errors import ENDS_A_RUN, ClientError, InvalidInput
from medmoe.client.images.folder import find_images
from medmoe.client.options import RenderOptions
from medmoe.client.transport.retry import Retry
from medmoe.model.cli import with_headings
from medmoe.model.image_formats.signature import rendered_name


@with_headings(RequestOptions.HEADINGS)
@with_option_groups()
def render(
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="Image, or folder of images such as DICOM files.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="PNG file, or folder to write PNG files to.")],
    view: Annotated[
        Literal["frame", "model"],
        typer.Option(help="frame: upright, at most 1024 pixels a side; model: exactly what the model gets."),
    ] = "frame",
    window: WindowOption = None,
    frame: FrameOption = None,
    allow_uniform: AllowUniformOption = False,
    workers: Annotated[int, typer.Option(min=1, help="Images in work at a time.")] = 4,
    *,
    service: ServiceOptions,
) -> None:
    """Write images as PNG, as the service decodes them: windows, palettes and orientation applied, no metadata.

    A folder keeps its structure, so `medmoe finetune` can train on a folder of DICOM files that was rendered. The
    PNG file of an image that has not changed since is kept, whatever the options. An image that the service refuses or
    fails on is named, and the exit status is 1.
    """
    options: RenderOptions = {"window": window, "frame": frame, "allow_uniform": allow_uniform}
    if view != "frame":
        options["view"] = view
    targets = _targets(input, output)
    missing = {file: target for file, target in targets.items() if file == input or not _is_of(target, file)}
    with usage_errors():
        retry = reported(Retry(unreachable=False))
        key = api_key(service.token_file)
        client = AsyncClient(service.url, api_key=key, timeout=service.timeout, retry=retry)
    refused = asyncio.run(_write_all(client, missing, options, workers=workers))
    kept = len(targets) - len(missing)
    typer.echo(safe(f"{output}: {len(missing) - refused} written, {kept} kept, {refused} refused"))
    if refused:
        raise typer.Exit(1)


async def _write_all(client: AsyncClient, targets: Mapping[Path, Path], options: RenderOptions, *, workers: int) -> int:
    """Write the PNG file of each image. Name the images of which none is written, and return their number."""
    places = asyncio.Semaphore(workers)
    show = note_progress()
    refused = 0

    async def one(file: Path) -> str | None:
        async with places:
            return await _write(client, file, targets[file], options)

    async with client:
        asked = {file: asyncio.create_task(one(file)) for file in targets}
        try:
            for number, (file, written) in enumerate(asked.items(), start=1):
                if (reason := await written) is not None:
                    refused += 1
                    note(f"{file}: {reason}")
                show(f"{number} of {len(targets)} images", number == len(targets))
        finally:
            for written in asked.values():
                written.cancel()
            await asyncio.gather(*asked.values(), return_exceptions=True)
    return refused


def _targets(source: Path, output: Path) -> dict[Path, Path]:
    """Return the PNG file of each image.

    Raises InvalidInput without an image, or where two images would be one PNG; typer.BadParameter for another format.
    """
    if not source.exists():
        raise InvalidInput(f"{source} does not exist")
    if output.exists() and output.is_dir() != source.is_dir():
        raise InvalidInput(f"{output} is {'a' if output.is_dir() else 'no'} folder; choose another OUTPUT")
    if not source.is_dir():
        require_png(output)
        return {source: output}
    found = find_images(source)
    for text in found.notes:
        note(text)
    if not found.images:
        raise InvalidInput(f"{source} holds no image")
    taken: dict[Path, Path] = {}
    for file in found.images:
        target = output / rendered_name(str(file.relative_to(source)))
        if target in taken:
            raise InvalidInput(f"{taken[target]} and {file} would both be written to {target}; rename one")
        taken[target] = file
    return {file: target for target, file in taken.items()}


def _is_of(target: Path, file: Path) -> bool:
    """Return whether `target` was written of `file` as it is: exports of several studies repeat names."""
    return target.exists() and int(target.stat().st_mtime) == int(file.stat().st_mtime)


def _remove_foreign(target: Path, file: Path) -> None:
    """Remove a PNG that is of another image than `file`."""
    if not _is_of(target, file):
        target.unlink(missing_ok=True)


async def _write(client: AsyncClient, file: Path, target: Path, options: RenderOptions) -> str | None:
    """Write one PNG with the time of its image; return why the image cannot be read, is refused or fails.

    Raises InvalidInput when the PNG cannot be written, and ENDS_A_RUN.
    """
    try:
        changed = (await asyncio.to_thread(file.stat)).st_mtime
        found = await client.render(file, **options)
    except OSError as error:
        return str(error)
    except ENDS_A_RUN:
        raise
    except ClientError as error:
        await asyncio.to_thread(_remove_foreign, target, file)
        return str(error)
    await asyncio.to_thread(_put, target, found.image, changed)
    return None


def _put(target: Path, url: str, changed: float) -> None:
    """Replace a PNG by that of a data URL, with the time of its image. Raises InvalidInput."""
    # What a link leads to is replaced, not the link.
    target = Path(os.path.realpath(target))
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        if target.exists():
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        write_png(part, url)
        os.utime(part, (changed, changed))
        part.replace(target)
    except OSError as error:
        raise InvalidInput(f"{target} cannot be written: {error.strerror}") from error
