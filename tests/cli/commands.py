"""Commands that the tests of several commands run."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths


def trained(recipe: str, folder: Path) -> Path:
    """Train a recipe for a few batches, and return its checkpoint."""
    recipes = [f"--config={recipe_paths()[name]}" for name in (recipe, "trainer/smoke")]
    main(["fit", *recipes, f"--trainer.logger.init_args.save_dir={folder}"])
    return next(folder.rglob("*.ckpt"))


def refusal(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end with exit status 2, and return what it prints to stderr, in one line."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in message
    return message
