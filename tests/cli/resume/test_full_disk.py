"""A disk that really fills, at any moment: the last whole checkpoint resumes, and the run ends as if it had not."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.resume.trainings import assert_same
from tests.full_disk import fill, small_disk
from tests.started import checkpoints, rows

RECIPES = [f"--config={recipe_paths()[name]}" for name in ("vib_digits", "trainer/smoke")]
ROOM = 500_000  # bytes more at each moment; a checkpoint has 1.2 MB, and the run writes twelve, of which it keeps seven
MOMENTS = range(0, 20, 2)


def fit(folder: Path) -> None:
    often = "--trainer.callbacks+=lit_bottleneck.callbacks.ResumePoint", "--trainer.callbacks.every_n_steps=1"
    kept = "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=2"
    all_of_them = "--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.filename={step}"
    length = "--trainer.max_epochs=3", f"--trainer.logger.init_args.save_dir={folder}"
    main(["fit", *RECIPES, *often, *kept, *all_of_them, *length])


def end(folder: Path) -> tuple[Any, Any, list[str]]:
    """Return the rows, the checkpoints and all files of a run."""
    [run] = folder.glob("*/version_0")
    files = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return rows(run), checkpoints(run), files


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[str]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    fit(folder)
    return end(folder)


@pytest.mark.parametrize(
    "moment", [moment if moment == 6 else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
)
def test_a_run_goes_on_when_a_full_disk_has_room_again(
    moment: int, uninterrupted: tuple[Any, Any, list[str]], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", mebibytes=64) as disk:
        fill(disk / "filler", leave=moment * ROOM)
        with pytest.raises(OSError, match=rf"\[Errno 28\] .*'{re.escape(str(disk))}/vib_digits") as raised:
            fit(disk)
        assert raised.value.errno == 28
        (disk / "filler").unlink()
        assert not list(disk.rglob(".part-*"))
        [run] = disk.glob("*/version_0")
        if (run / "resume.ckpt").exists():
            main(["resume", str(run)])
        else:  # full before the first one was written
            assert not list(run.rglob("*.ckpt"))
            shutil.rmtree(run)
            fit(disk)
        assert_same(end(disk), uninterrupted)
