"""Measure how far a service's probabilities can be trusted, on labelled images with one folder for each label.

    python -m medmoe.client.examples.risk_coverage IMAGES OUTPUT

writes OUTPUT/answers.csv (one line for each image), OUTPUT/experts.csv (the experts of each label's image tokens by
layer) and OUTPUT/risk_coverage.png (risk against coverage, and accuracy against probability). Needs matplotlib.
Research software, not a medical device.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from medmoe.client import BadRequest, Classification, Client

try:
    import matplotlib as mpl
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    raise SystemExit("error: this example draws with matplotlib: pip install matplotlib") from None

Answered = tuple[Path, Classification]
"""An image, whose folder is its label, and the service's answer."""
_BINS = 10


def main(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder with one folder for each label.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder for the tables and the figure.")],
    url: Annotated[str | None, typer.Option(help="Address of the service; by default MEDMOE_URL.")] = None,
    question: Annotated[str | None, typer.Option(help="Question in your own words, without calibration.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Number of concurrent requests.")] = 8,
) -> None:
    """Classify every image and summarise the answers."""
    files = sorted(path for path in images.glob("*/*") if path.is_file())
    labels = sorted({path.parent.name for path in files})
    if len(labels) < 2:
        raise typer.BadParameter("at least two labels are needed, each with a folder of images")

    # The client reads MEDMOE_API_KEY.
    with Client(url) as client, ThreadPoolExecutor(at_once) as threads:

        def ask(path: Path) -> Answered | None:
            try:
                return path, client.classify(path, labels, question=question, include_routing=True)
            except BadRequest as error:
                typer.echo(f"left out: {path}: {error}", err=True)
                return None

        answered = [one for one in threads.map(ask, files) if one is not None]
        domains = client.metadata().expert_domains
    if not answered:
        raise typer.BadParameter("the service took none of the images")

    output.mkdir(parents=True, exist_ok=True)
    rows = sorted(map(_row, answered), key=lambda row: -row["probability"])
    _write(output / "answers.csv", rows)
    _write(output / "experts.csv", [row for label in labels for row in _experts(label, answered, domains)])
    wrong = [row["label"] != row["truth"] for row in rows]
    risks = [sum(wrong[:kept]) / kept for kept in range(1, len(rows) + 1)]
    _draw(output / "risk_coverage.png", rows, risks)
    calibrated = "calibrated" if all(row["calibrated"] for row in rows) else "the model's own"
    typer.echo(f"{len(rows)} of {len(files)} images, probabilities {calibrated}")
    typer.echo(f"accuracy {100 * (1 - risks[-1]):.1f} %, area under risk and coverage {sum(risks) / len(risks):.3f}")


def _row(answered: Answered) -> dict[str, Any]:
    path, answer = answered
    return {
        "image": f"{path.parent.name}/{path.name}",
        "truth": path.parent.name,
        "label": answer.label,
        "probability": max(one.probability for one in answer.probabilities),
        "label_mass": answer.label_mass,
        "calibrated": answer.calibration is not None,
        "abstained": answer.abstained,
    }


def _experts(label: str, answered: Iterable[Answered], domains: Sequence[str]) -> list[dict[str, Any]]:
    """Return each expert's share of the image tokens of one label."""
    tokens: dict[int, Counter[int]] = {}
    for path, answer in answered:
        for layer in answer.routing.layers if path.parent.name == label and answer.routing else ():
            tokens.setdefault(layer.layer, Counter()).update(dict(enumerate(layer.image)))
    names = dict(enumerate(domains))
    return [
        {"truth": label, "layer": layer, "expert": names.get(expert, expert), "share": count / counts.total()}
        for layer, counts in tokens.items()
        for expert, count in sorted(counts.items())
    ]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0] if rows else ())
        table.writeheader()
        table.writerows(rows)


def _draw(path: Path, rows: Sequence[dict[str, Any]], risks: Sequence[float]) -> None:
    mpl.use("Agg")
    figure, (left, right) = plt.subplots(ncols=2, figsize=(9, 4), layout="constrained")
    left.plot([100 * kept / len(risks) for kept in range(1, len(risks) + 1)], [100 * risk for risk in risks])
    left.set(xlabel="surest answers kept, %", ylabel="wrong among them, %", xlim=(0, 100), ylim=(0, None))
    right.plot([0, 100], [0, 100], color="grey", linewidth=0.8)
    for index in range(_BINS):
        inside = [row for row in rows if min(int(row["probability"] * _BINS), _BINS - 1) == index]
        if inside:
            said = sum(row["probability"] for row in inside) / len(inside)
            right.scatter(100 * said, 100 * sum(row["label"] == row["truth"] for row in inside) / len(inside), c="C0")
    right.set(xlabel="probability as answered, %", ylabel="right, %", xlim=(0, 100), ylim=(0, 105))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    typer.run(main)
