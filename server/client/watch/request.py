"""Send the request of a rule about one image or series."""

from typing import cast

from medmoe.client.answers import Classification, SeriesAnswer, SeriesClassification, VqaAnswer
from medmoe.client.client import Client
from medmoe.client.images.instance import Instance
from medmoe.client.images.series import Series
from medmoe.client.options import ReportOptions, SeriesOptions
from medmoe.client.watch.rules import Rule

RuleAnswer = VqaAnswer | Classification | SeriesAnswer | SeriesClassification


def send(client: Client, rule: Rule, named: Instance | Series) -> RuleAnswer:
    """Ask about an image or a series what `rule` asks. Raises ClientError."""
    store = rule.source if rule.store else None
    fields = {"window": rule.window, "min_confidence": rule.min_confidence, "store": store}
    if isinstance(named, Series):
        of_series = cast(SeriesOptions, fields | {"slices": rule.slices, "aggregate": rule.aggregate})
        if rule.labels is None:
            return client.ask_series(named, rule.question or "", **of_series)
        return client.classify_series(named, rule.labels, finding=rule.finding, **of_series)
    options = cast(ReportOptions, fields)
    if rule.labels is None:
        return client.ask(named, rule.question or "", **options)
    return client.classify(named, rule.labels, **options)
