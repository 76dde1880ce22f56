"""Name the scopes of a key or a token, which its bearer may use."""

from typing import Literal, get_args

Scope = Literal["ask", "stats", "admin"]
"""`ask`: all that is asked about images, rendered images, batches and the lists of DICOMweb sources. `stats`: the
statistics of the router and the metrics. `admin`: both, and the change of the checkpoint."""
ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


def known_scopes(names: list[str]) -> frozenset[Scope]:
    """Return those of `names` that are scopes."""
    return frozenset(scope for scope in ALL_SCOPES if scope in names)
