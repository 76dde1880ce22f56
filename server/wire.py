"""What everything on the wire has in common: nothing unknown, nothing mutable, no NaN, and documented fields."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """Base of requests and answers."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
