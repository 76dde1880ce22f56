"""`medmoe render`: write images as a service shows them to the model."""

import asyncio
import contextlib
import errno
import os
import secrets
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from medmoe.client.async_client import AsyncClient
from medmoe.client.commands.connection import ServiceOptions, api_key, reported, usage_errors, with_option_groups
from medmoe.client.commands.images import AllowUniformOption, FrameOption, WindowOption, require_other_file, require_png
from medmoe.client.commands.request_options import RequestOptions
from medmoe.client.commands.terminal import note, note_progress, safe
from medmoe.client.errors import ENDS_A_RUN, ClientError, InvalidInput
from medmoe.client.images.folder import find_images
from medmoe.client.images.image import Image
from medmoe.client.images.rendered_png import RenderMark
from medmoe.client.options import RenderOptions
from medmoe.client.transport.retry import Retry
from medmoe.model.cli import with_headings
from medmoe.model.image_formats.signature import rendered_name

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that every other PNG would meet too."""
_Outcome = Literal["written", "kept", "refused"]


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
    PNG file of an image that has not changed since is kept, if the options are the same. An image that the service
    refuses or fails on is named, and the exit status is 1.
    """
    options: RenderOptions = {"window": window, "frame": frame, "allow_uniform": allow_uniform}
    if view != "frame":
        options["view"] = view
    targets = _targets(input, output)
    with usage_errors():
        retry = reported(Retry(unreachable=False))
        key = api_key(service.token_file)
        client = AsyncClient(service.url, api_key=key, timeout=service.timeout, retry=retry)
    rendering = _Rendering(client, options, keep=input.is_dir())
    found = asyncio.run(rendering.write_all(targets, workers=workers))
    typer.echo(safe(f"{output}: {found['written']} written, {found['kept']} kept, {found['refused']} refused"))
    if found["refused"]:
        raise typer.Exit(1)


class _Rendering:
    """A run: its service, the options of all images, and whether PNG files that are right are kept."""

    def __init__(self, client: AsyncClient, options: RenderOptions, *, keep: bool) -> None:
        self._client = client
        self._options = options
        self._keep = keep

    async def write_all(self, targets: Mapping[Path, Path], *, workers: int) -> Counter[_Outcome]:
        """Write the PNG file of each image, name the images of which none is written, and count what was done."""
        places = asyncio.Semaphore(workers)
        show = note_progress()
        found = Counter[_Outcome]()

        async def one(file: Path) -> _Outcome | ClientError:
            async with places:
                return await self._write(file, targets[file])

        async with self._client:
            asked = {file: asyncio.create_task(one(file)) for file in targets}
            try:
                for number, (file, written) in enumerate(asked.items(), start=1):
                    outcome = await written
                    if isinstance(outcome, ClientError):
                        note(f"{file}: {outcome}")
                        outcome = "refused"
                    found[outcome] += 1
                    show(f"{number} of {len(targets)} images", number == len(targets))
            finally:
                for written in asked.values():
                    written.cancel()
                await asyncio.gather(*asked.values(), return_exceptions=True)
        return found

    async def _write(self, file: Path, target: Path) -> _Outcome | ClientError:
        """Write one PNG; return why the image cannot be read, is refused or fails, or its PNG cannot be written.

        Raises ENDS_A_RUN, and InvalidInput where there is no room for a PNG.
        """
        try:
            image = await asyncio.to_thread(Image.of, file)
            mark, old = RenderMark.of(image, self._options), await asyncio.to_thread(_mark, target)
        except InvalidInput as error:
            return error
        if self._keep and old == mark:
            return "kept"
        try:
            found = await self._client.render(image, **self._options)
        except ENDS_A_RUN:
            raise
        except ClientError as error:
            # Another image's PNG would be taken for this one's, in a folder also one with other options. A file
            # without a mark is somebody else's.
            if old is not None and (self._keep or old.image != mark.image):
                await asyncio.to_thread(_remove, target)
            return error
        try:
            await asyncio.to_thread(_put, target, mark.put(Image.from_base64(found.image).data))
        except OSError as error:
            failure = _unwritable(target, error)
            if error.errno in _FULL:
                raise failure from error
            return failure
        return "written"


def _targets(source: Path, output: Path) -> dict[Path, Path]:
    """Return the PNG file of each image.

    Raises InvalidInput without an image, or where two images would be one PNG or one would be replaced;
    typer.BadParameter for another format and for the image itself.
    """
    if not source.exists():
        raise InvalidInput(f"{source} does not exist")
    if output.exists() and output.is_dir() != source.is_dir():
        raise InvalidInput(f"{output} is {'a' if output.is_dir() else 'no'} folder; choose another OUTPUT")
    if not source.is_dir():
        require_png(output)
        require_other_file(output, source)
        return {source: output}
    found = find_images(source)
    for text in found.notes:
        note(text)
    if not found.images:
        raise InvalidInput(f"{source} holds no image")
    images = {os.path.realpath(file) for file in found.images}
    taken: dict[Path, Path] = {}
    for file in found.images:
        target = output / rendered_name(str(file.relative_to(source)))
        if os.path.realpath(target) in images:  # Path.resolve has no OSError for links in a circle
            raise InvalidInput(f"{target} is an image of {source}, and would be lost; choose another OUTPUT")
        if target in taken:
            raise InvalidInput(f"{taken[target]} and {file} would both be written to {target}; rename one")
        taken[target] = file
    return {file: target for target, file in taken.items()}


def _mark(target: Path) -> RenderMark | None:
    """Return the mark of the PNG at `target`, None without one. Raises InvalidInput where none can be written."""
    try:
        return RenderMark.read(target)
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> InvalidInput:
    return InvalidInput(f"{target} cannot be written: {error.strerror}")


def _remove(target: Path) -> None:
    with contextlib.suppress(OSError):
        target.unlink()


def _put(target: Path, png: bytes) -> None:
    """Replace a PNG as one step. Raises OSError."""
    # What a link leads to is replaced, not the link.
    target = Path(os.path.realpath(target))
    # Not after the PNG, whose name may be as long as names can be, and which another run may be writing too.
    part = target.with_name(f".{secrets.token_hex(16)}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.touch()
        if target.exists():
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        part.write_bytes(png)
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
