"""Look through sources by rules, and ask about each image or series once."""

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from medmoe.client.answers import StudyInfo
from medmoe.client.client import Client
from medmoe.client.errors import BadRequest, ClientError, InvalidInput
from medmoe.client.watch.backoff import PASSING, WAITING, Backoff, is_of_source
from medmoe.client.watch.catalogue import Catalogue, Found, Target
from medmoe.client.watch.request import send
from medmoe.client.watch.rules import Rule, nearest
from medmoe.client.watch.state import State
from medmoe.client.watch.tally import Tally

_SERVICE = "the service"
_IMAGE_CODES = frozenset({"instance_too_large", "quarantined"})
_IMAGE_FIELDS = frozenset({"image", "series", "window", "frame"})


class Watcher:
    """Ask one service about the images and series of its sources. A round looks through all rules."""

    def __init__(
        self,
        client: Client,
        rules: Sequence[Rule],
        state: State,
        *,
        report: Callable[[Tally], None],
        note: Callable[[str], None],
        interval: float,
        once: bool,
        dry_run: bool,
        show_uids: bool,
    ) -> None:
        """`report` takes the counts of a study, `note` a message; `interval` is in seconds.

        With `once` or `dry_run` studies are taken as they are; otherwise when their counts are unchanged for an
        interval.
        """
        self._client = client
        self._rules = rules
        self._state = state
        self._report = report
        self._note = note
        self._interval = interval
        self._once = once or dry_run
        self._dry_run = dry_run
        self._show_uids = show_uids
        self._catalogue = Catalogue(client, note=note)
        self._backoff = Backoff(interval=interval)
        self._sources_checked = False
        self._down: set[str] = set()
        self._seen: dict[str, float] = {}
        self.asked = 0
        """Images and series that were answered in this process."""
        self.failed = 0
        """Requests that failed in this process."""
        self.studies: set[str] = set()
        """Studies of the modality and dates of a rule, in a dry run."""

    def run(self) -> NoReturn:
        """Make rounds without end; after a failed one the pauses double from a second up to the interval.

        Raises ClientError for a failure that does not pass by itself.
        """
        failed_rounds = 0
        while True:
            failed_rounds = 0 if self.round() is None else failed_rounds + 1
            pause = 2.0 ** min(failed_rounds - 1, 60) if failed_rounds else self._interval
            time.sleep(min(pause, self._interval))

    def round(self) -> ClientError | None:
        """Look through all rules, and return the last error of those that a later round may mend."""
        last: ClientError | None = None
        for rule in self._rules:
            try:
                self._check_sources()
                self._look(rule)
            except PASSING as error:
                last = error
                if not is_of_source(error):
                    self._note_down(_SERVICE, error)
                    break
                self._note_up(_SERVICE)
                self._note_down(f"source {rule.source}", error)
            except BadRequest as error:
                raise ClientError(f"rule {rule.name}: {error}") from error
            else:
                self._note_up(_SERVICE, f"source {rule.source}")
        return last

    def _note_down(self, name: str, error: ClientError) -> None:
        if name not in self._down and not self._once:
            self._down.add(name)
            self._note(f"{error}; trying again until {name} answers")

    def _note_up(self, *names: str) -> None:
        for name in names:
            if name in self._down:
                self._down.remove(name)
                self._note(f"{name} answers again")

    def _check_sources(self) -> None:
        """Raise InvalidInput for a rule whose source the service does not have, or does not store in."""
        if self._sources_checked:
            return
        sources = {one.name: one for one in self._client.sources()}
        for rule in self._rules:
            if rule.source not in sources:
                hint = nearest(rule.source, sources)
                raise InvalidInput(f"rule {rule.name}: the service has no source {rule.source}{hint}")
            if rule.store and not sources[rule.source].store:
                raise InvalidInput(
                    f"rule {rule.name}: store is true, but the service stores no reports in {rule.source}"
                )
        self._sources_checked = True

    def _look(self, rule: Rule) -> None:
        """Look through the studies of a rule."""
        self._backoff.restart()
        for study in self._catalogue.studies(rule):
            if self._dry_run:
                self.studies.add(study.study)
            counts = (study.series_count, study.instance_count)
            key = self._state.key("study", rule.model_dump(exclude={"name"}), study.study, counts)
            if key not in self._state and (self._once or self._is_settled(key)):
                is_complete = self._look_at_study(rule, study, key)
                self._backoff.require_no_outage()
                if is_complete and None not in counts and not self._dry_run:
                    self._state.add(key, "complete")

    def _is_settled(self, key: str) -> bool:
        """Return whether the study has had the same counts for an interval."""
        now = time.monotonic()
        return now - self._seen.setdefault(key, now) >= self._interval

    def _look_at_study(self, rule: Rule, study: StudyInfo, key: str) -> bool:
        """Ask about what a rule takes of a study, report its counts, and return whether nothing is left to ask."""
        name = study.study if self._show_uids else self._state.key("name", study.study)[:12]
        tally = Tally(rule=rule.name, study=name)
        found: list[Found] = []
        try:
            is_complete = self._attempt(key, tally, lambda: found.append(self._catalogue.targets(rule, study)))
            for one in found:
                tally.long_series = one.long_series
                if rule.series:
                    tally.series = len(one.targets)
                else:
                    tally.images = len(one.targets)
                for target in one.targets:
                    is_complete &= self._look_at(rule, target, tally)
        finally:
            if tally.is_news or (self._dry_run and tally.total > tally.known):
                self._report(tally)
        return is_complete

    def _look_at(self, rule: Rule, target: Target, tally: Tally) -> bool:
        """Ask about a target unless it is known, and return whether it is known now."""
        kind, *identity = target.identity
        key = self._state.key(kind, rule.request, *identity)
        if key in self._state:
            tally.known += 1
            return True
        return not self._dry_run and self._attempt(key, tally, lambda: self._ask(rule, target, key, tally))

    def _attempt(self, key: str, tally: Tally, action: Callable[[], None]) -> bool:
        code = self._backoff.attempt(key, action)
        if code is not None and code != WAITING:
            tally.failed[code] += 1
            self.failed += 1
        return code is None

    def _ask(self, rule: Rule, target: Target, key: str, tally: Tally) -> None:
        try:
            answer = send(self._client, rule, target.named)
        except BadRequest as error:
            if error.param not in _IMAGE_FIELDS and error.code not in _IMAGE_CODES:
                raise
            tally.refused[error.code] += 1
            self._state.add(key, "refused")
            return
        self._state.add(key, "answered" if answer.stored is None else "stored")
        self.asked += 1
        tally.asked += 1
        tally.abstained += answer.abstained
        tally.stored += answer.stored is not None
