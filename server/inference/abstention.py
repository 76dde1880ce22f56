"""When an answer is too unsure to be relied on.

The answer is marked, not withheld: a stream has sent it before its confidence is known, and whoever chooses a threshold
must see what it takes away. Whoever shows answers to people decides what they see of a marked one.
"""

from medmoe.server.settings import Settings


def threshold(asked: float | None, settings: Settings) -> float | None:
    """The request's own threshold, or the deployment's; None: nothing is ever marked."""
    return settings.min_confidence if asked is None else asked


def abstains(confidence: float | None, *, under: float | None) -> bool:
    """Whether `confidence`, of which None is the lowest, is under the threshold."""
    return under is not None and (0.0 if confidence is None else confidence) < under
