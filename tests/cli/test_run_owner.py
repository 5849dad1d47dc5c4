"""One command at a time writes into a run's folder, and a new run begins only where no other has left its files."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.cli import app, main, run_owner
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.cli.run_owner import RunOwner
from lit_bottleneck.training.folder_owner import FILENAME, FolderOwner, seconds_to_its_end
from tests.cli.commands import refusal
from tests.cli.resume.trainings import assert_same
from tests.started import PATIENCE, checkpoints, finish, processes_of, rows, start, wait_for

HOLD, SIGN = "hold", "trains"  # files in the current folder
RUN = Path("runs/vib_digits/mine")


class Hold(Callback):
    """In the second epoch wait while a file exists."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and Path(HOLD).exists():
            Path(SIGN).touch()
            while Path(HOLD).exists():
                time.sleep(0.01)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*options: str, version: str = "mine") -> list[str]:
    """Return the arguments of a short training."""
    overlay = Path("overlay.yaml")
    overlay.write_text(
        "trainer:\n  callbacks+:\n    - class_path: lit_bottleneck.callbacks.ResumePoint\n"
        f"      init_args: {{every_n_steps: 1}}\n    - class_path: {__name__}.Hold\n"
    )
    recipe = ["fit", "--config", str(recipe_paths()["vib_digits"]), "--config", str(overlay)]
    short = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
    return [*recipe, *short, *quiet, f"--trainer.logger.init_args.version={version}", *options]


def in_use(process: Any) -> str:
    return f"error: {RUN} is in use by process {process.pid} on "


def test_a_fit_into_a_folder_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with FolderOwner(RUN):
        assert f"error: {RUN} is in use by process {os.getpid()} on " in refusal(fit(), capsys)
    assert not (RUN / "config.yaml").exists()


@pytest.mark.slow
def test_a_second_fit_and_a_second_resume_are_refused_and_the_first_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run has loader workers, which live for seconds when it is killed."""
    log, mine = folder / "log.txt", fit()
    finish(fit(version="alone"), folder / "alone.txt")
    Path(HOLD).touch()
    first = start([*mine, "--data.init_args.num_workers=2"], log, daemon=False)
    try:
        wait_for(Path(SIGN), first)
        assert in_use(first) in refusal(mine, capsys)
    finally:
        first.kill()
    FolderOwner(RUN, patience=10).release()
    message = refusal(mine, capsys)
    assert f"{RUN} holds the files of another run (config.yaml, metrics.csv, resume.ckpt ...)" in message, message
    assert f"'lit-bottleneck resume {RUN}' goes on with it, another version" in message

    second = start(["resume", str(RUN), "--data.init_args.num_workers=0"], log)
    wait_for(Path(SIGN), second)
    assert in_use(second) in refusal(["resume", str(RUN)], capsys)
    assert in_use(second) in refusal(["test", *mine[1:], f"--ckpt_path={RUN}/resume.ckpt"], capsys)
    Path(HOLD).unlink()
    second.join()
    assert second.exitcode == 0, log.read_text()
    alone = RUN.with_name("alone")
    assert rows(RUN) == rows(alone)
    assert_same(checkpoints(RUN), checkpoints(alone))
    assert sorted(path.name for path in RUN.iterdir()) == sorted(path.name for path in alone.iterdir())


def test_a_run_is_overwritten_only_if_asked_for_and_only_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    main(fit())
    (RUN / "notes.txt").write_text("mine")
    (RUN / "checkpoints/old.ckpt").touch()
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file() and path.name != FILENAME}
    message = refusal(fit(), capsys)
    assert "holds the files of a finished run (config.yaml, metrics.csv, checkpoints/best.ckpt ...)" in message, message
    assert "another version (--trainer.logger.init_args.version) keeps it, --overwrite removes it" in message
    # Refused when the networks are tried, after the folder was looked at.
    assert "latent_dim=5" in refusal(fit("--overwrite", "--model.init_args.latent_dim=5"), capsys)
    assert not (RUN / "resume.ckpt").exists()  # the mark of a run that begins
    # Refused at the start of the training, by a check and by a callback of Lightning's.
    one_cycle = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.1, "total_steps": 1}}
    message = refusal(fit("--overwrite", f"--model.init_args.lr_scheduler={json.dumps(one_cycle)}"), capsys)
    assert "OneCycleLR: total_steps=1" in message
    schedule = {"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {0: 2}}}
    twice = ["--trainer.accumulate_grad_batches=2", f"--trainer.callbacks+={json.dumps(schedule)}"]
    assert "leave one out" in refusal(fit("--overwrite", *twice), capsys)
    assert {path: path.read_bytes() for path in before} == before
    assert "holds the files of a finished run" in refusal(fit(), capsys)  # what is refused notes nothing of the run
    main(["resume", str(RUN)])  # does nothing
    assert "the run is finished" in refusal(["resume", str(RUN), "--trainer.max_epochs=3"], capsys)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in RUN.iterdir()} == {FILENAME, *(path.relative_to(RUN).parts[0] for path in before)}

    main(fit("--overwrite", "--trainer.max_epochs=1"))
    assert {row["epoch"] for row in rows(RUN)} == {"0", "1"}  # the test's is 1
    assert (RUN / "notes.txt").read_text() == "mine"
    assert [path.name for path in (RUN / "checkpoints").iterdir()] == ["best.ckpt"]
    assert "overwrite" not in (RUN / "config.yaml").read_text()


def test_a_run_that_is_cut_after_its_end_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*args: Any) -> str:
        raise InterruptedError("cut")

    monkeypatch.setattr(app, "closing_lines", cut)
    with pytest.raises(InterruptedError):
        main(fit("--trainer.max_epochs=1"))
    before = rows(RUN)
    main(["resume", str(RUN)])
    assert rows(RUN) == before
    assert seconds_to_its_end(RUN) is not None


def test_a_run_that_is_put_back_is_never_taken_for_one_that_was_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file is the last that is moved before the process is killed."""
    old = {"config.yaml": "a", "metrics.csv": "b", "checkpoints/best.ckpt": "c", "hparams.yaml": "d"}
    move = run_owner._move
    for kept in range(len(old) + 1):
        for name, text in old.items():
            (folder / str(kept) / ".overwritten" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / str(kept) / ".overwritten" / name).write_text(text)
        left = iter(range(kept))

        def move_some(path: Path, to: Path, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            move(path, to)

        monkeypatch.setattr(run_owner, "_move", move_some)
        with suppress(KeyboardInterrupt):
            run_owner._restore(folder / str(kept))
        monkeypatch.setattr(run_owner, "_move", move)
        own = RunOwner()
        own.own(Trainer(logger=False, default_root_dir=folder / str(kept), accelerator="cpu"), trains=True)
        with own.until_the_end():
            assert {name: (folder / str(kept) / name).read_text() for name in old} == old


def test_without_a_logger_the_current_folder_is_that_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    command = [word for word in fit("--trainer.logger=false", "--trainer.max_epochs=1") if "version" not in word]
    main(command)
    before = Path("config.yaml").read_bytes()
    assert "another default_root_dir (--trainer.default_root_dir) keeps it" in refusal(command, capsys)
    assert Path("config.yaml").read_bytes() == before


def test_a_training_that_keeps_nothing_owns_nothing_and_writes_nothing(folder: Path) -> None:
    files = [f"--config={recipe_paths()[name]}" for name in ("vib_digits", "trainer/smoke")]
    with FolderOwner(folder):
        before = set(folder.iterdir())
        main(
            [
                "fit",
                *files,
                "--trainer.callbacks=null",
                "--trainer.logger=false",
                "--trainer.enable_checkpointing=false",
            ]
        )
        assert set(folder.iterdir()) == before


@pytest.mark.parametrize("logger", ["CSVLogger", pytest.param("TensorBoardLogger", marks=pytest.mark.slow)])
def test_runs_that_begin_at_once_have_folders_of_their_own(logger: str, folder: Path) -> None:
    loggers = [f"--trainer.logger=lightning.pytorch.loggers.{logger}", "--trainer.logger.save_dir=runs"]
    command = fit(*loggers, "--trainer.max_epochs=1")
    command = [word for word in command if "version" not in word]
    processes = [start(command, folder / f"{number}.txt") for number in range(2)]
    for process in processes:
        process.join()
    for number in range(2):
        assert processes[number].exitcode == 0, (folder / f"{number}.txt").read_text()
    runs = sorted(Path("runs").glob("*/*"))
    assert [run.name for run in runs] == ["version_0", "version_1"]
    assert all((run / "checkpoints/best.ckpt").exists() and (run / "config.yaml").exists() for run in runs)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_further_ranks_end_with_a_killed_first_one_and_the_run_is_free(folder: Path) -> None:
    recipe = ["fit", f"--config={recipe_paths()['vib_digits']}", f"--trainer.logger.init_args.save_dir={folder}/runs"]
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=100000"]
    run = folder / "runs/vib_digits/version_0"
    first = start([*recipe, *two], folder / "log.txt")
    wait_for(run / "checkpoints", first)
    assert processes_of(folder / "runs")
    first.kill()
    first.join()
    until = time.monotonic() + PATIENCE
    while processes_of(folder / "runs") and time.monotonic() < until:
        time.sleep(0.05)
    assert not processes_of(folder / "runs")
    finish(["resume", str(run), "--trainer.max_epochs=1"], folder / "log.txt")


def test_a_folder_that_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    message = refusal(fit("--trainer.logger.init_args.save_dir=file"), capsys)
    assert "error: file/vib_digits cannot be written to: Not a directory" in message
