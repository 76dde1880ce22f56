"""What a conversion did with every tensor and every doubtful field; written beside the weights as conversion.json."""

import json
from dataclasses import asdict, dataclass, field

REPORT_FILE = "conversion.json"


@dataclass
class Report:
    """Filled as the conversion goes. Keys are upstream's names. No path of the machine comes into it."""

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

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def summary(self) -> list[str]:
        """Lines for a person: counts, reasons and everything that was not taken as it came."""
        lines = [", ".join(f"{name} {value}" for name, value in self.source.items())]
        lines.append(f"{len(self.mapped)} tensors converted, {len(self.tied)} tied, {len(self.dropped)} dropped")
        for reason in dict.fromkeys(self.dropped.values()):
            lines.append(f"  dropped {sum(r == reason for r in self.dropped.values())}: {reason}")
        lines += [f"  cut {name}: {what}" for name, what in self.cut.items()]
        lines += [f"  ignored {name}: {why}" for name, why in (self.ignored_fields | self.ignored_files).items()]
        lines += [f"  note: {note}" for note in self.notes]
        if self.router:
            lines.append(f"  router: {self.router['text']}")
        total = sum(self.parameters.values())
        parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self.parameters.items())
        return [*lines, f"{total:,} parameters ({parts})"]
