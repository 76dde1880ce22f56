"""The checkpoint that comes with the repository is whole, and is the one its card describes."""

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.config import BUNDLED
from medmoe.model.files.weight_files import weights_sha256
from medmoe.model.prompt import Prompt
from medmoe.training.recipes.tiny import tiny


def test_it_loads_strictly_and_is_what_the_recipe_builds() -> None:
    model = load_checkpoint(BUNDLED)
    assert model.config == tiny().architecture
    assert Prompt.from_directory(BUNDLED, model.config).question("Is it normal?")


def test_its_card_names_its_weights() -> None:
    assert weights_sha256(BUNDLED) in (BUNDLED / "README.md").read_text()


def test_it_is_small_enough_for_a_repository() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 64_000_000
