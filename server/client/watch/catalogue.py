"""Find the studies of a source, and their images or series, that a rule is about."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from medmoe.client.answers import InstanceInfo, SeriesInfo, StudyInfo
from medmoe.client.client import Client
from medmoe.client.images.instance import Instance
from medmoe.client.images.series import Series
from medmoe.client.watch.rules import Rule

MOST = 1000
"""Most entries of one list of the service."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Name an image, or a series as a whole, to ask about."""

    named: Instance | Series
    images: int
    """Images that the source lists of it."""

    @property
    def identity(self) -> tuple[str | int, ...]:
        """Return what tells it from others; a series that has grown is another."""
        if isinstance(self.named, Series):
            return "series", self.named.study, self.named.series, self.images
        return "image", self.named.study, self.named.series, self.named.instance


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Hold the images or series of a study that a rule takes."""

    targets: tuple[Target, ...]
    long_series: int
    """Series that are left out, because they have more instances than one list holds."""


class Catalogue:
    """Query the sources of one service."""

    def __init__(self, client: Client, *, note: Callable[[str], None]) -> None:
        """`note` takes a message for the operator."""
        self._client = client
        self._note = note

    def studies(self, rule: Rule) -> Iterator[StudyInfo]:
        """Yield the studies of a rule's modality and dates. Raises ClientError."""
        yield from self._studies(rule, rule.since, None)

    def targets(self, rule: Rule, study: StudyInfo) -> Found:
        """Return the images of a study, or with `rule.series` its series that have some. Raises ClientError."""
        targets: list[Target] = []
        long_series = 0
        for series in self._client.series(rule.source, study.study, limit=MOST):
            if not _matches(rule, study, series):
                continue
            listed = self._client.instances(rule.source, study.study, series.series, limit=MOST)
            if len(listed) == MOST:
                # Which of its images are listed is the source's choice, so none is the first or the middle one.
                long_series += 1
                continue
            # Objects without rows are no images.
            images = [one for one in listed if one.rows is not None]
            place = {"source": rule.source, "study": study.study, "series": series.series}
            if not rule.series:
                chosen = [Instance(**place, instance=one.instance) for one in _chosen(rule, images)]
                targets += [Target(named=one, images=1) for one in chosen]
            elif images:
                targets.append(Target(named=Series(**place), images=len(images)))
        return Found(targets=tuple(targets), long_series=long_series)

    def _studies(self, rule: Rule, first: date, last: date | None) -> Iterator[StudyInfo]:
        """Yield the studies of some dates, and halve the dates when one list does not hold them."""
        dates = f"{first:%Y%m%d}-" + (f"{last:%Y%m%d}" if last else "")
        listed = self._client.studies(rule.source, modality=rule.modality, date=dates, limit=MOST)
        days = ((last or date.today()) - first).days
        if len(listed) < MOST or days < 1:
            if len(listed) == MOST:
                self._note(f"{rule.name}: the source has {MOST} studies or more of {first}; the others are not seen")
            yield from listed
            return
        middle = first + timedelta(days=days // 2)
        yield from self._studies(rule, first, middle)
        yield from self._studies(rule, middle + timedelta(days=1), last)


def _matches(rule: Rule, study: StudyInfo, series: SeriesInfo) -> bool:
    if rule.modality is not None and series.modality != rule.modality:
        return False
    described = f"{study.description or ''}\n{series.description or ''}"
    return rule.description is None or rule.description.casefold() in described.casefold()


def _chosen(rule: Rule, listed: Sequence[InstanceInfo]) -> list[InstanceInfo]:
    """Return the images that a rule takes of a series."""
    images = sorted(listed, key=lambda one: (one.number is None, one.number or 0, one.instance))
    if rule.instances == "all":
        return images[: rule.limit]
    index = 0 if rule.instances == "first" else len(images) // 2
    return images[index : index + 1]
