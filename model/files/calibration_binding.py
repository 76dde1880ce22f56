"""State the data that calibrations and prediction sets were fitted on, and the model that they hold for. Torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from medmoe.model.files.strict_json import StrictSection
from medmoe.model.files.weights_bound_file import Sha256

Dtype = Literal["float32", "bfloat16", "float16"]
Probability = Annotated[float, Field(ge=0, le=1)]


class FittedOn(StrictSection):
    """The samples that chose the parameters."""

    datasets: tuple[str, ...] = Field(min_length=1)
    split: Literal["train", "val", "test"]
    n: int = Field(gt=0)


class BoundTo(StrictSection):
    """Prompt and number formats that a map was fitted with, besides the weights; it holds for no others."""

    prompt_sha256: Sha256
    """`Prompt.sha256`."""
    dtypes: tuple[Dtype, ...] = Field(min_length=1)
    """Number formats of the engine in which it lowered the error."""

    def holds(self, *, prompt_sha256: str, dtype: Dtype | None) -> bool:
        """Return whether these are the prompt and the number format; None is an engine without one."""
        return self.prompt_sha256 == prompt_sha256 and (dtype is None or dtype in self.dtypes)
