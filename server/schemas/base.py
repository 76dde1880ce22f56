"""Define the base of every model of the HTTP API."""

from pydantic import BaseModel, ConfigDict


class ApiModel(BaseModel):
    """Immutable model without unknown fields, NaN or infinity; field docstrings become descriptions in OpenAPI."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
