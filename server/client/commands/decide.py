"""`medmoe decide`: ask a service several closed questions about one image."""

from typing import Annotated

import typer

from medmoe.client.answers import ChoiceAnswer, Decision, PredicateAnswer, ScoreAnswer
from medmoe.client.answers.decisions import AnyDecisionAnswer
from medmoe.client.commands.connection import ServiceOptions, with_option_groups
from medmoe.client.commands.images import FileArgument, MinLabelMassOption, read_image
from medmoe.client.commands.request_options import REPORT, SOURCE, RequestOptions
from medmoe.client.commands.terminal import as_json, note_unlike_training, table
from medmoe.client.options import DecisionOptions
from medmoe.client.questions import Choice, Predicate, Question, Score

_SEPARATOR = "|"
_REASONS = {
    "min_confidence": "too unsure",
    "min_label_mass": "none of the options fits",
    "unlike_training": "unlike the training images",
}


@with_option_groups(without=SOURCE | REPORT)
def decide(
    image: FileArgument,
    predicate: Annotated[
        list[str] | None, typer.Option(metavar="QUESTION", help="Yes-or-no question; repeat it for more.")
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(metavar="'QUESTION | A | B'", help="Question with its options; repeat it for more."),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'QUESTION | LOW | HIGH'", help="Question with levels in ascending order; may be repeated."
        ),
    ] = None,
    min_label_mass: MinLabelMassOption = None,
    *,
    request: RequestOptions,
    service: ServiceOptions,
) -> None:
    """Ask a running service closed questions about one image, and print the probability of each answer.

    Predicates are printed first, then choices, then scores. Research software, not a medical device.
    """
    questions: list[Question] = [Predicate(words) for words in predicate or ()]
    questions += [Choice(words, options) for words, options in map(_split, choice or ())]
    questions += [Score(words, levels) for words, levels in map(_split, score or ())]
    if not questions:
        raise typer.BadParameter("a question is needed: --predicate, --choice or --score")
    options: DecisionOptions = {**request.answer_fields(), "min_label_mass": min_label_mass}
    given = read_image(image, pixels_only=request.pixels_only, frame=request.frame)
    with service.client() as client:
        found = client.decisions(given, questions, **options)
    typer.echo(as_json(found) if request.json_ else _table(questions, found))
    if not request.json_:
        note_unlike_training(found.medmoe.unlike_training)


def _split(text: str) -> tuple[str, list[str]]:
    words, *options = (part.strip() for part in text.split(_SEPARATOR))
    if len(options) < 2:
        raise typer.BadParameter(f"at least two options are needed: 'QUESTION {_SEPARATOR} A {_SEPARATOR} B'")
    return words, options


def _table(questions: list[Question], found: Decision) -> str:
    rows = [(question.instructions, *_cells(answer)) for question, answer in zip(questions, found.answers, strict=True)]
    return table(("question", "answer", "probability"), rows)


def _cells(answer: AnyDecisionAnswer) -> tuple[str, str]:
    match answer:
        case PredicateAnswer(probability=probability):
            return ("yes", f"{probability:.3f}") if probability >= 0.5 else ("no", f"{1 - probability:.3f}")
        case ChoiceAnswer(choice=chosen):
            word = chosen if isinstance(chosen, str) else "yes" if chosen else "no"
            return word, f"{answer.confidence:.3f}"
        case ScoreAnswer():
            best = max(answer.probabilities, key=lambda level: level.probability)
            return f"{best.label} (score {answer.score:.2f})", f"{answer.confidence:.3f}"
        case _:
            reason = answer.medmoe.reason
            return f"abstained: {_REASONS.get(reason, reason)}", ""
