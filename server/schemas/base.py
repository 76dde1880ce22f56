"""What every message on the wire has in common."""

from pydantic import BaseModel, ConfigDict


class ApiModel(BaseModel):
    """Immutable, without unknown fields, NaN or infinity; the docstrings of its fields are its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
