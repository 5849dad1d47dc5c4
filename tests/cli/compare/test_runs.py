"""The configuration and the folder of a run."""

from pathlib import Path
from typing import Any

import pytest

from lit_bottleneck.cli.compare.arms import Arm
from lit_bottleneck.cli.compare.runs import run_of

CSV = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": "x"}}
WANDB = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"save_dir": "runs", "offline": True}}


def configured(logger: Any = None, callbacks: Any = None) -> dict[str, Any]:
    return {"seed_everything": 0, "trainer": {"logger": logger, "callbacks": callbacks, "max_epochs": 3}, "model": {}}


@pytest.mark.parametrize("logger", [None, True, False, CSV, [CSV]])
def test_every_run_logs_into_its_own_folder(logger: Any, tmp_path: Path) -> None:
    run = run_of(Arm("my arm", ()), 7, configured(logger), tmp_path)
    assert run.folder == tmp_path / "my_arm/seed_7"
    assert run.configuration["seed_everything"] == 7
    [ours] = run.configuration["trainer"]["logger"]
    assert ours["init_args"] == {"save_dir": str(run.folder), "name": "", "version": ""}


def test_other_loggers_stay_and_are_told_apart(tmp_path: Path) -> None:
    given = configured([CSV, WANDB])
    run = run_of(Arm("a", ()), 1, given, tmp_path)
    _, wandb = run.configuration["trainer"]["logger"]
    assert wandb["init_args"] == {"save_dir": str(run.folder), "offline": True, "name": "a, seed 1"}
    assert given == configured([CSV, WANDB])


@pytest.mark.parametrize(
    ("settings", "accounts"),
    [({"model.init_args.beta": "1"}, True), ({"model.init_args.beta.init_args.capacity": "1"}, True),
     ({"model.init_args.latent_dim": "1"}, False), ({}, False)],
)  # fmt: skip
def test_a_grid_over_a_price_is_accounted_for(settings: dict[str, str], accounts: bool, tmp_path: Path) -> None:
    callback = {"class_path": "lit_bottleneck.callbacks.Pictures"}
    for callbacks in (None, callback, [callback]):
        run = run_of(Arm("a", (), settings), 0, configured(callbacks=callbacks), tmp_path)
        added = run.configuration["trainer"]["callbacks"] or []
        added = added if isinstance(added, list) else [added]
        assert ({"class_path": "lit_bottleneck.callbacks.Information"} in added) == accounts
        assert (callback in added) == bool(callbacks)


def test_what_the_recipe_accounts_with_is_left_as_it_is(tmp_path: Path) -> None:
    given = [{"class_path": "lit_bottleneck.callbacks.Information", "init_args": {"max_codes": 50}}]
    run = run_of(Arm("a", (), {"model.init_args.beta": "1"}), 0, configured(callbacks=given), tmp_path)
    assert run.configuration["trainer"]["callbacks"] == given


def test_a_run_is_finished_when_it_says_so_and_begins_anew_when_it_does_not(tmp_path: Path) -> None:
    run = run_of(Arm("a", ()), 0, configured(), tmp_path)
    assert run.seconds is None
    assert not run.is_of_another_comparison()
    run.prepare()
    (run.folder / "leftover").touch()
    assert run.seconds is None
    run.prepare()
    assert not (run.folder / "leftover").exists()
    run.finish(2.5)
    assert run.seconds == 2.5
    assert [path.name for path in sorted(run.folder.iterdir())] == ["configuration.yaml", "finished.json"]


def test_checkpoints_stay_in_the_folder_of_the_run(tmp_path: Path) -> None:
    given = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "some/epochs"}}
    for callbacks in (given, [given]):
        run = run_of(Arm("a", ()), 3, configured(callbacks=callbacks), tmp_path)
        made = run.configuration["trainer"]["callbacks"]
        [made] = made if isinstance(made, list) else [made]
        assert made["init_args"]["dirpath"] == str(tmp_path / "a/seed_3/epochs")


def test_the_finished_run_of_other_settings_is_known(tmp_path: Path) -> None:
    run = run_of(Arm("a", ()), 0, configured(), tmp_path)
    run.prepare()
    other = configured()
    other["trainer"]["max_epochs"] = 4
    assert not run_of(Arm("a", ()), 0, other, tmp_path).is_of_another_comparison()
    run.finish(1.0)
    assert not run_of(Arm("a", ()), 0, configured(), tmp_path).is_of_another_comparison()
    assert run_of(Arm("a", ()), 0, other, tmp_path).is_of_another_comparison()
