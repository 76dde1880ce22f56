"""Define the options that `ask` and `classify` share."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps

import typer

from medmoe.client.client import Client
from medmoe.client.commands.connection import JsonOption, TimeoutOption, TokenFileOption, UrlOption, create_client
from medmoe.client.commands.images import (
    FrameOption,
    InstanceOption,
    MinConfidenceOption,
    ModalityOption,
    PixelsOnlyOption,
    RoutingOption,
    SeriesOption,
    SourceOption,
    StudyOption,
    WindowOption,
    read_image,
)
from medmoe.client.images.image import Image
from medmoe.client.images.instance import Instance
from medmoe.client.options import ImageOptions
from medmoe.client.transport.address import LOCAL


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestOptions:
    """Hold the options of a request about one image."""

    source: SourceOption = None
    study: StudyOption = None
    series: SeriesOption = None
    instance: InstanceOption = None
    window: WindowOption = None
    frame: FrameOption = None
    min_confidence: MinConfidenceOption = None
    modality: ModalityOption = None
    routing: RoutingOption = False
    pixels_only: PixelsOnlyOption = False
    url: UrlOption = LOCAL
    token_file: TokenFileOption = None
    timeout: TimeoutOption = 120.0
    json_: JsonOption = False

    def __post_init__(self) -> None:
        """Raise typer.BadParameter for options that exclude each other."""
        if self.routing and not self.json_:
            raise typer.BadParameter("--routing is printed with --json")
        named = (self.source, self.study, self.series, self.instance)
        if any(named) and not all(named):
            raise typer.BadParameter("--source, --study, --series and --instance name an image together")
        if self.source and self.pixels_only:
            raise typer.BadParameter("--pixels-only changes a file before it is sent; the service fetches this image")

    def fields(self) -> ImageOptions:
        """Return the options that the service is sent."""
        return {
            "window": self.window,
            "frame": self.frame,
            "min_confidence": self.min_confidence,
            "modality": self.modality,
            "include_routing": self.routing,
        }

    def client(self) -> Client:
        """Create a client. Raises InvalidInput and typer.BadParameter."""
        return create_client(self.url, self.token_file, self.timeout)

    def read(self, arguments: Sequence[str]) -> tuple[Image | Instance, list[str]]:
        """Return the image and the arguments after it; the first one is a file, or `-` for standard input.

        With --source no argument is an image. Raises InvalidInput.
        """
        if self.source and self.study and self.series and self.instance:
            named = Instance(source=self.source, study=self.study, series=self.series, instance=self.instance)
            return named, list(arguments)
        return read_image(arguments[0], pixels_only=self.pixels_only), list(arguments[1:])


def with_request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's last parameter, `request: RequestOptions`, by one option for each of its fields."""
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["request"]
    shared = inspect.signature(RequestOptions, eval_str=True).parameters
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own.values(), *shared.values())]

    @wraps(command)
    def flat(**given: object) -> None:
        request = RequestOptions(**{name: given.pop(name) for name in shared})  # type: ignore[arg-type]
        command(**given, request=request)

    del flat.__wrapped__
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat
