"""The error family and its table."""

import re

import pytest

from medmoe.model.errors import MedMoEError
from medmoe.server import errors
from medmoe.server.dicomweb.errors import SourceError
from medmoe.server.http import error_table
from medmoe.server.http.error_table import HTTP_MEANING, error_spec, error_spec_of_status


def family(root: type[MedMoEError]) -> set[type[MedMoEError]]:
    return {root}.union(*(family(child) for child in root.__subclasses__()))


def ours() -> list[type[MedMoEError]]:
    """What can come out of the service; its client's errors, if another test has imported them, are no part of it."""
    rooms, elsewhere = ("medmoe.model.errors", "medmoe.server"), "medmoe.client"
    kinds = (kind for kind in family(MedMoEError) if kind.__module__.startswith(rooms))
    return sorted((kind for kind in kinds if not kind.__module__.startswith(elsewhere)), key=lambda k: k.__name__)


@pytest.mark.parametrize("kind", ours(), ids=lambda kind: kind.__name__)
def test_every_error_has_its_own_row(kind: type[MedMoEError]) -> None:
    assert kind in HTTP_MEANING


@pytest.mark.parametrize("kind", ours(), ids=lambda kind: kind.__name__)
def test_the_module_docstring_draws_the_whole_family(kind: type[MedMoEError]) -> None:
    assert errors.__doc__ is not None
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__)


@pytest.mark.parametrize("kind", list(HTTP_MEANING), ids=lambda kind: kind.__name__)
def test_a_failure_of_the_service_never_speaks_for_itself(kind: type[MedMoEError]) -> None:
    meaning = HTTP_MEANING[kind]
    # Those of a source are written for the client.
    assert meaning.status < 500 or meaning.message or issubclass(kind, SourceError)


def test_a_stranger_is_an_internal_error() -> None:
    assert error_spec(RuntimeError("x")) is error_table.INTERNAL


def test_an_unlisted_subclass_means_what_its_parent_means() -> None:
    class Special(errors.Overloaded):
        """Only for this test."""

    try:
        assert error_spec(Special(retry_after=1)) is HTTP_MEANING[errors.Overloaded]
    finally:
        # The class registers itself with its parent; without this the family tests would depend on their order.
        Special.__module__ = "test"


@pytest.mark.parametrize(("status", "code"), [(404, "not_found"), (405, "method_not_allowed"), (418, "refused")])
def test_framework_statuses_have_fixed_words(status: int, code: str) -> None:
    meaning = error_spec_of_status(status)
    assert (meaning.status, meaning.code) == (status, code)
    assert meaning.message
