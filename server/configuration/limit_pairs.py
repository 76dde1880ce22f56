"""Refuse settings that can never be used because of another."""

from dataclasses import dataclass
from typing import Self

from pydantic import model_validator

from medmoe.server.configuration.batch_settings import FORM_BYTES
from medmoe.server.configuration.strict_environment import StrictSettings, variable


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    """Two settings, the first of which must not exceed the second."""

    value: str
    limit: str
    limit_unit: int = 1
    """Units of `value` in one of `limit`."""
    overhead: int = 0
    """What comes with `value` and counts for the limit as well."""
    needs: str | None = None
    """Setting without which `value` means nothing."""
    lowers_default: bool = False
    """Whether a `value` that is not set is lowered to the limit."""


_PAIRS = (
    _Pair(value="max_body_bytes", limit="body_memory_mib", limit_unit=2**20),
    _Pair(value="max_series_bytes", limit="body_memory_mib", limit_unit=2**20),
    _Pair(value="batch_max_bytes", limit="body_memory_mib", limit_unit=2**20, overhead=FORM_BYTES, needs="batch_dir"),
    _Pair(value="batch_max_bytes", limit="batch_max_stored_bytes", needs="batch_dir"),
    _Pair(value="explain_grid", limit="max_explain_steps"),
    _Pair(value="series_slices", limit="max_series_slices", lowers_default=True),
    _Pair(value="default_max_tokens", limit="max_tokens", lowers_default=True),
)


class LimitPairs(StrictSettings):
    """Settings of which none can be set so that another hides it."""

    @model_validator(mode="after")
    def _no_limit_hides_another(self) -> Self:
        for pair in _PAIRS:
            if pair.needs is not None and getattr(self, pair.needs) is None:
                continue
            if pair.lowers_default and pair.value not in self.model_fields_set:
                continue
            value, limit = getattr(self, pair.value), getattr(self, pair.limit) * pair.limit_unit - pair.overhead
            if value > limit:
                raise ValueError(
                    f"{variable(pair.value)} is {value} and can never be used: {variable(pair.limit)} allows {limit};"
                    " lower the first or raise the second"
                )
        return self
