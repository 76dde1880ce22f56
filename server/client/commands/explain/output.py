"""Print a map."""

import typer

from medmoe.client.answers import Explanation
from medmoe.client.commands.terminal import note, note_unlike_training, safe, table


def print_map(found: Explanation) -> None:
    """Print the answer, the importance by row and column, and what they mean."""
    typer.echo(safe(found.answer))
    headers = ("row", *(str(column + 1) for column in range(found.columns)))
    typer.echo(
        table(
            headers,
            [(str(row), *(f"{one:z.2f}" for one in cells)) for row, cells in enumerate(found.importance, start=1)],
        )
    )
    note(
        f"log-likelihood {found.log_likelihood:z.2f}; each number is how much it falls when the image around that "
        "place is covered: what the model reacts to, not the outline of a finding"
    )
    note_unlike_training(found.unlike_training)
