"""What vLLM would tell its log about the people whose images it computes."""

import logging

import pytest

from medmoe.model.vllm_plugin import register

pytestmark = pytest.mark.engine

SECRET = "pixels-of-a-patient"


class Config:
    """Stands for anything that vLLM writes by its representation."""

    def __repr__(self) -> str:
        return SECRET


class Lines(logging.Handler):
    """Keeps what a logger really lets out, whichever stream vLLM's own handler holds."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_a_failed_step_does_not_dump_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.logging_utils import dump_input

    logger, lines = logging.getLogger(dump_input.__name__), Lines()
    monkeypatch.setattr(logger, "handlers", [lines])
    # Earlier tests have registered the plugin in this process.
    monkeypatch.setattr(logger, "filters", [])
    dump_input.dump_engine_exception(Config(), object(), None)  # type: ignore[arg-type]
    assert any(SECRET in text for text in lines.texts), "vLLM dumps elsewhere now: the filter guards the wrong place"
    lines.texts.clear()
    register()
    register()
    dump_input.dump_engine_exception(Config(), object(), None)  # type: ignore[arg-type]
    assert not lines.texts
