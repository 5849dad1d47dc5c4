"""A run's configuration and folder."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.arms import Arm
from lit_bottleneck.cli.compare.runs import Run, make_run
from lit_bottleneck.cli.recipes import as_list
from lit_bottleneck.training.folder_owner import FolderInUseError, FolderOwner

CSV = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": "x"}}
WANDB = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"save_dir": "runs", "offline": True}}


def configured(logger: Any = None, callbacks: Any = None) -> dict[str, Any]:
    return {"seed_everything": 0, "trainer": {"logger": logger, "callbacks": callbacks, "max_epochs": 3}, "model": {}}


@pytest.mark.parametrize("logger", [None, True, False, CSV, [CSV]])
def test_every_run_logs_into_its_own_folder(logger: Any, tmp_path: Path) -> None:
    run = make_run(Arm("my arm", ()), 7, configured(logger), tmp_path)
    assert run.folder == tmp_path / "my_arm/seed_7"
    assert run.configuration["seed_everything"] == 7
    [ours] = run.configuration["trainer"]["logger"]
    assert ours["init_args"] == {"save_dir": str(run.folder), "name": "", "version": ""}


def test_other_loggers_stay_and_get_the_runs_name(tmp_path: Path) -> None:
    given = configured([CSV, WANDB])
    run = make_run(Arm("a", ()), 1, given, tmp_path)
    _, wandb = run.configuration["trainer"]["logger"]
    assert wandb["init_args"] == {"save_dir": str(run.folder), "offline": True, "name": "a, seed 1"}
    assert given == configured([CSV, WANDB])


@pytest.mark.parametrize(
    ("settings", "adds"),
    [
        ({"model.beta": "1"}, True),
        ({"model.beta.capacity": "1"}, True),
        ({"model.latent_dim": "1"}, False),
        ({}, False),
    ],
)
def test_a_grid_over_beta_or_capacity_adds_information(settings: dict[str, str], adds: bool, tmp_path: Path) -> None:
    callback = {"class_path": "lit_bottleneck.callbacks.Pictures"}
    for callbacks in (None, callback, [callback]):
        run = make_run(Arm("a", (), settings), 0, configured(callbacks=callbacks), tmp_path)
        added = as_list(run.configuration["trainer"]["callbacks"])
        assert ({"class_path": "lit_bottleneck.callbacks.Information"} in added) == adds
        assert (callback in added) == bool(callbacks)


def test_the_recipes_own_information_callback_is_kept(tmp_path: Path) -> None:
    given = [{"class_path": "lit_bottleneck.callbacks.Information", "init_args": {"max_codes": 50}}]
    run = make_run(Arm("a", (), {"model.init_args.beta": "1"}), 0, configured(callbacks=given), tmp_path)
    assert run.configuration["trainer"]["callbacks"] == given


def test_an_unfinished_run_starts_with_an_empty_folder(tmp_path: Path) -> None:
    run = make_run(Arm("a", ()), 0, configured(), tmp_path)
    assert run.seconds is None
    assert not run.belongs_to_another_comparison()
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
        run = make_run(Arm("a", ()), 3, configured(callbacks=callbacks), tmp_path)
        [made] = as_list(run.configuration["trainer"]["callbacks"])
        assert made["init_args"]["dirpath"] == str(tmp_path / "a/seed_3/epochs")


def test_a_finished_run_of_other_settings_is_recognised(tmp_path: Path) -> None:
    run = make_run(Arm("a", ()), 0, configured(), tmp_path)
    run.prepare()
    other = configured()
    other["trainer"]["max_epochs"] = 4
    assert not make_run(Arm("a", ()), 0, other, tmp_path).belongs_to_another_comparison()
    run.finish(1.0)
    reordered = dict(reversed(configured().items()))
    assert not make_run(Arm("a", ()), 0, reordered, tmp_path).belongs_to_another_comparison()
    assert make_run(Arm("a", ()), 0, other, tmp_path).belongs_to_another_comparison()


def begun(run: Run, ended: bool, is_trained: bool) -> None:
    """Leave in a run's folder what a training leaves that has come to its end, or was cut."""
    run.prepare()
    with suppress(KeyboardInterrupt), FolderOwner(run.folder):
        (run.folder / "config.yaml").touch()
        if not is_trained:
            (run.folder / "resume.ckpt").touch()
        if not ended:
            raise KeyboardInterrupt


def test_a_run_that_was_cut_is_resumed_and_one_that_failed_begins_anew(tmp_path: Path) -> None:
    run = make_run(Arm("a", ()), 0, configured(), tmp_path)
    anew = ["fit", "--config", str(run.configuration_file)]
    assert run.begin() == anew
    begun(run, ended=False, is_trained=False)
    assert not run.has_come_to_its_end
    assert run.begin() == ["resume", str(run.folder)]
    run.fail(1)
    assert run.begin() == anew
    assert not (run.folder / "resume.ckpt").exists()
    assert not (run.folder / "failed.json").exists()


def test_a_run_that_ended_after_its_comparison_was_killed_is_finished(tmp_path: Path) -> None:
    run = make_run(Arm("a", ()), 0, configured(), tmp_path)
    begun(run, ended=True, is_trained=True)
    assert run.has_come_to_its_end
    assert run.begin() is None
    assert run.seconds == pytest.approx(0, abs=60)


def test_a_run_into_whose_folder_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    run = make_run(Arm("a", ()), 0, configured(), tmp_path)
    begun(run, ended=False, is_trained=False)
    with FolderOwner(run.folder):
        with pytest.raises(FolderInUseError, match="is in use by process"):
            run.begin()
        run.fail(2)
    assert run.begin() == ["resume", str(run.folder)]


def test_a_cut_run_of_other_settings_is_that_of_another_comparison(tmp_path: Path) -> None:
    begun(make_run(Arm("a", ()), 0, configured(), tmp_path), ended=False, is_trained=False)
    other = configured()
    other["trainer"]["max_epochs"] = 4
    assert make_run(Arm("a", ()), 0, other, tmp_path).belongs_to_another_comparison()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    run = make_run(Arm("a", ()), 0, configured(), tmp_path)
    run.prepare()
    for text in ("", "{}", "[1]", '{"seconds": null}'):
        (run.folder / "finished.json").write_text(text)
        with pytest.raises(ConfigurationError, match=r"finished\.json is damaged: delete it"):
            _ = run.seconds
