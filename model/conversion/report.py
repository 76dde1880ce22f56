"""Report what a conversion did with every tensor and doubtful field, as conversion.json."""

import json
from dataclasses import asdict, dataclass, field

from medmoe.model.files.terminal_safe import MAX_MESSAGE, terminal_safe

REPORT_FILE = "conversion.json"
_SHOWN = 20


@dataclass
class Report:
    """Collect what became of each tensor during a conversion. It holds no path of the machine.

    Keys are upstream's names, after "vision tower: " where the tower has files of its own.
    """

    source: dict[str, object] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    """Upstream's tensor to ours."""
    tied: dict[str, str] = field(default_factory=dict)
    """Upstream's tensor to the equal one that is kept instead."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Upstream's tensor to the reason why it has no place."""
    cut: dict[str, str] = field(default_factory=dict)
    ignored_fields: dict[str, str] = field(default_factory=dict)
    ignored_files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    router: dict[str, object] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the report as UTF-8. Half a surrogate pair, as in a file name that is no UTF-8, becomes JSON's own
        escape of it.
        """
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        return text.encode(errors="backslashreplace")

    def summary(self) -> list[str]:
        """Return printable lines for a person: counts, reasons and everything that was not taken as it came."""
        lines = [", ".join(f"{name} {value}" for name, value in self.source.items())]
        lines.append(f"{len(self.mapped)} tensors converted, {len(self.tied)} tied, {len(self.dropped)} dropped")
        for reason in dict.fromkeys(self.dropped.values()):
            lines.append(f"  dropped {sum(r == reason for r in self.dropped.values())}: {reason}")
        lines += _some([f"  cut {terminal_safe(name)}: {what}" for name, what in self.cut.items()])
        ignored = self.ignored_fields | self.ignored_files
        lines += _some([f"  ignored {terminal_safe(name)}: {why}" for name, why in ignored.items()])
        lines += _some([f"  note: {note}" for note in self.notes])
        if self.router:
            lines.append(f"  router: {self.router['text']}")
        total = sum(self.parameters.values())
        parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self.parameters.items())
        return [terminal_safe(line, limit=MAX_MESSAGE) for line in (*lines, f"{total:,} parameters ({parts})")]


def _some(lines: list[str]) -> list[str]:
    rest = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"  and {rest} more in {REPORT_FILE}"] if rest > 0 else [])]
