"""The command ``sample``."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_bottleneck import VAE, VDBGAN
from lit_bottleneck.cli import main
from lit_bottleneck.networks import MLP, MLPDecoder
from tests import quiet
from tests.cli.commands import refusal, trained
from tests.full_disk import no_file_longer_than


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("vae_digits", tmp_path_factory.mktemp("run"))


def test_a_grid_holds_the_models_samples(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "grid.png"
    main(["sample", "--ckpt_path", str(checkpoint), "--num", "12", "--columns", "4", "--out", str(out)])
    grid = np.asarray(Image.open(out))
    assert grid.shape == (3 * 50 + 2, 4 * 50 + 2, 3)
    model = VAE.load_from_checkpoint(checkpoint, weights_only=True)
    torch.manual_seed(0)
    images = (model.sample(12)[:, 0] * 255).round()
    for number, (row, column) in ((0, (0, 0)), (5, (1, 1)), (11, (2, 3))):
        tile = grid[2 + 50 * row : 50 + 50 * row, 2 + 50 * column : 50 + 50 * column, 0]
        assert np.abs(tile[3::6, 3::6] - images[number].numpy()).max() <= 1


def test_the_seed_determines_the_samples_and_the_last_row_may_be_short(checkpoint: Path, tmp_path: Path) -> None:
    grids = []
    for seed in (1, 1, 2):
        main(["sample", f"--ckpt_path={checkpoint}", "--num=10", f"--seed={seed}", f"--out={tmp_path / 'grid.png'}"])
        grids.append(np.array(Image.open(tmp_path / "grid.png")))
    assert np.array_equal(grids[0], grids[1])
    assert not np.array_equal(grids[0], grids[2])
    assert grids[0].shape == (4 * 50 + 2, 3 * 50 + 2, 3)


def test_bad_arguments_are_named(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ckpt_path" in refusal(["sample"], capsys)
    assert "nowhere.ckpt" in refusal(["sample", "--ckpt_path", "nowhere.ckpt"], capsys)
    sample = ["sample", "--ckpt_path", str(checkpoint)]
    assert "--num: must be at least 1; got 0" in refusal([*sample, "--num", "0"], capsys)
    too_many = refusal([*sample, "--num", "1000000000000"], capsys)
    assert "--num: must be at most 58254, for a picture of 134217728 pixels; got 1000000000000" in too_many
    assert "--value_range: black must be less than white" in refusal([*sample, "--value_range", "1", "0"], capsys)
    text = tmp_path / "text.ckpt"
    text.write_text("no checkpoint")
    assert "--ckpt_path" in refusal(["sample", "--ckpt_path", str(text)], capsys)


def test_a_full_disk_keeps_the_old_picture(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, full = tmp_path / "old.png", tmp_path / "full.png"
    out.write_text("old")
    full.symlink_to("/dev/full")
    sample = ["sample", "--ckpt_path", str(checkpoint), "--out"]
    with no_file_longer_than(100):
        assert f"--out: [Errno 27] File too large: '{out}'" in refusal([*sample, str(out)], capsys)
    assert "--out: [Errno 28] No space left on device" in refusal([*sample, str(full)], capsys)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.png", "old.png"]


def test_a_checkpoint_from_python_is_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner, path = quiet.trainer(), tmp_path / "mine.ckpt"
    runner.strategy.connect(VAE(MLP(64, [], 4), MLPDecoder(2, [], (1, 8, 8)), 2, "gaussian"))
    runner.save_checkpoint(path)
    assert "load_from_checkpoint" in refusal(["sample", "--ckpt_path", str(path)], capsys)


def test_a_classifier_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(["sample", "--ckpt_path", str(trained("vib_digits", tmp_path))], capsys)
    assert "must hold a model with sample(); got a VIBClassifier" in message


def test_pixel_values_span_the_range_of_the_gans_generator(tmp_path: Path) -> None:
    path = trained("vdbgan_digits", tmp_path)
    main(["sample", "--ckpt_path", str(path), "--num", "4", "--out", str(tmp_path / "grid.png")])
    model = VDBGAN.load_from_checkpoint(path, weights_only=True)
    torch.manual_seed(0)
    expected = ((model.sample(4)[0, 0] + 1) / 2 * 255).round().numpy()
    grid = np.asarray(Image.open(tmp_path / "grid.png"))[2:50, 2:50, 0]
    assert np.abs(grid[3::6, 3::6] - expected).max() <= 1


def test_points_are_plotted(tmp_path: Path) -> None:
    path = trained("vdbgan_ring", tmp_path)
    main(["sample", "--ckpt_path", str(path), "--num", "300", "--out", str(tmp_path / "points.png")])
    pixels = np.asarray(Image.open(tmp_path / "points.png")).astype(int)
    assert (pixels[..., 2] - pixels[..., 0] > 50).sum() > 50  # blue
