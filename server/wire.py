"""What every shape on the wire has in common."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """Unknown fields are errors, values do not change, and a field's docstring is its description in /docs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
