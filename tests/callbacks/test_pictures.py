"""Pictures: which, when, and where they are written."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VAE
from lit_bottleneck.callbacks import Pictures
from lit_bottleneck.callbacks.pictures import image_grid, point_plot
from lit_bottleneck.data import Digits, Ring
from lit_bottleneck.networks import MLP
from tests.callbacks.small_models import classifier, gan, point_gan, vae
from tests.quiet import trainer

NAMES = ("interpolation", "reconstructions", "samples", "traversal")


def still(parameters: Any) -> torch.optim.Optimizer:
    """Return an optimizer that changes nothing."""
    return torch.optim.SGD(parameters, lr=0.0)


class Diagonal(nn.Module):
    """Maps noise to one of two points, by its sign."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor([1.2, 1.2]))

    def forward(self, noise: Tensor) -> Tensor:
        return noise[:, :1].sign() * self.point


CASES = [
    pytest.param(lambda: vae(optimizer=still), Digits, NAMES, id="vae"),
    pytest.param(lambda: gan(optimizer=still), Digits, ("interpolation", "samples"), id="gan"),
    pytest.param(lambda: point_gan(Diagonal(), optimizer=still), Ring, ("samples",), id="points"),
]


def fit(model: LightningModule, folder: Path, data: Any = None, epochs: int = 1, **kwargs: Any) -> Trainer:
    logger = {"logger": CSVLogger(folder, name="run"), "log_every_n_steps": 1}
    run = trainer(**{"default_root_dir": folder, "max_epochs": epochs, "limit_train_batches": 3} | logger | kwargs)
    if isinstance(data, DataLoader):
        run.fit(model, data, data)
    else:
        run.fit(model, datamodule=Digits() if data is None else data)
    return run


def images(folder: Path, pattern: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.rglob(pattern))]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.png"))


def test_they_are_drawn_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    fit(vae(), tmp_path, epochs=5, callbacks=[Pictures(every_n_epochs=2)])
    assert files(tmp_path / "run/version_0/pictures") == sorted(
        f"{name}-{epoch:04d}.png" for name in NAMES for epoch in (2, 4, 5)
    )


def test_they_show_training_images_without_validation(tmp_path: Path) -> None:
    fit(vae(), tmp_path, data=Digits(val_size=0), callbacks=[Pictures()])
    assert files(tmp_path) == [f"{name}-0001.png" for name in NAMES]


def test_pictures_of_a_vae() -> None:
    model, x = vae().eval(), torch.rand(6, 1, 8, 8)
    pictures = Pictures(num_images=4, steps=5).pictures(model, x)
    sizes = {"samples": (4, 4), "reconstructions": (2, 4), "traversal": (4, 5), "interpolation": (4, 5)}
    assert {name: tuple(rows.shape[:2]) for name, rows in pictures.items()} == sizes
    assert torch.equal(pictures["reconstructions"][0], x[:4])
    reconstructions = model.reconstruct(x[:4])
    torch.testing.assert_close(pictures["reconstructions"][1], reconstructions)
    torch.testing.assert_close(pictures["interpolation"][:, 0], reconstructions)
    torch.testing.assert_close(pictures["interpolation"][:, -1], reconstructions.roll(-1, 0))


def test_a_traversal_moves_single_dimensions_in_the_order_of_their_rates() -> None:
    model, x = vae().eval(), torch.rand(6, 1, 8, 8)
    code = model.encode(x, sample=False)
    order = code.kl.mean(0).argsort(descending=True)
    traversal = Pictures(num_images=6, steps=3).pictures(model, x)["traversal"]
    for row, dimension in zip(traversal, order, strict=True):
        for image, value in zip(row, (-3.0, 0.0, 3.0), strict=True):
            z = code.mean[:1].clone()
            z[0, dimension] = value
            torch.testing.assert_close(image, model.decode(z)[0])


@pytest.mark.parametrize(("model", "data", "names"), CASES)
def test_every_epoch_shows_the_same_noise(model: Any, data: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    fit(model(), tmp_path, data=data(), epochs=2, callbacks=[Pictures(every_n_epochs=1)])
    for name in names:
        first, second = images(tmp_path, f"{name}-*.png")
        assert np.array_equal(first, second)


def test_another_draw_of_noise_is_another_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for seed in (0, 1):
        monkeypatch.setattr("lit_bottleneck.callbacks.pictures._SEED", seed)
        fit(gan(optimizer=still), tmp_path / str(seed), callbacks=[Pictures()])
    first, second = images(tmp_path, "samples-*.png")
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("model", "data", "names"), CASES)
def test_files_tensorboard_and_wandb_have_the_same_pictures(
    model: Any, data: Any, names: tuple[str, ...], tmp_path: Path
) -> None:
    board, wandb_logger = TensorBoardLogger(tmp_path, name="run"), WandbLogger(offline=True, save_dir=tmp_path)
    try:
        fit(model(), tmp_path, data=data(), logger=[board, wandb_logger], callbacks=[Pictures()])
        summary, folder = dict(wandb_logger.experiment.summary), Path(wandb_logger.experiment.dir)
    finally:
        wandb.finish()
    assert files(tmp_path / "run/version_0/pictures") == [f"{name}-0001.png" for name in names]
    events = EventAccumulator(board.log_dir).Reload()
    tags = [f"pictures/{name}" for name in names]
    assert sorted(events.Tags()["images"]) == sorted(name for name in summary if "pictures/" in name) == tags
    for name in names:
        pixels = np.asarray(Image.open(tmp_path / f"run/version_0/pictures/{name}-0001.png"))
        assert pixels.max() > pixels.min()
        [shown] = summary[f"pictures/{name}"]["filenames"]
        assert np.array_equal(np.asarray(Image.open(folder / shown)), pixels)
        [event] = events.Images(f"pictures/{name}")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), pixels)


@pytest.mark.filterwarnings("ignore:Pictures draws images")
def test_a_classifier_has_no_pictures_and_vectors_are_not_drawn_with_a_warning(tmp_path: Path) -> None:
    fit(classifier(), tmp_path, callbacks=[Pictures()])
    assert files(tmp_path) == []
    vectors = DataLoader(TensorDataset(torch.rand(8, 64)), batch_size=4)
    model = VAE(MLP(64, [], 8), MLP(4, [], 64), latent_dim=4, likelihood="continuous_bernoulli")
    with pytest.warns(UserWarning, match=r"draws images .* samples are \(64,\)"):
        fit(model, tmp_path, data=vectors, callbacks=[Pictures()])
    assert files(tmp_path) == []


def test_a_grid_has_its_images_in_rows_and_columns_and_is_clamped() -> None:
    rows = torch.full((2, 3, 1, 64, 64), -1.0)
    rows[1, 2] = 1.0
    rows[0, 1] = 5.0  # is clamped
    pixels = np.asarray(image_grid(rows, (-1.0, 1.0)))
    assert pixels.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    tiles = [[int(pixels[2 + 66 * row + 30, 2 + 66 * column + 30, 0]) for column in range(3)] for row in range(2)]
    assert tiles == [[0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 3.0)])
def test_every_grey_level_is_written_as_it_is(value_range: tuple[float, float]) -> None:
    low, high = value_range
    levels = torch.arange(256).reshape(1, 1, 1, 4, 64)
    pixels = np.asarray(image_grid(low + (high - low) * levels / 255, value_range))
    assert np.array_equal(pixels[2:-2:12, 2:-2:12, 0], levels[0, 0, 0])


def test_levels_between_are_rounded() -> None:
    shares = torch.rand(1, 2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    written = np.asarray(image_grid(shares))[2:-2, 2:50]
    nearest = np.round(255 * shares[0, 0].permute(1, 2, 0).numpy())
    assert np.array_equal(written, nearest)


def test_small_images_are_magnified_in_their_colours() -> None:
    rows = torch.zeros(1, 2, 3, 8, 8)
    rows[0, 0, 1, :4] = 1
    pixels = np.asarray(image_grid(rows))
    assert pixels.shape == (52, 102, 3)
    assert pixels[10, 25].tolist() == [0, 255, 0]
    assert pixels[40, 25].tolist() == [0, 0, 0]


def test_a_module_that_only_samples_has_samples() -> None:
    class Generator(LightningModule):
        def sample(self, n: int) -> Tensor:
            return torch.rand(n, 3, 8, 8)

    assert set(Pictures(num_images=2).pictures(Generator(), torch.rand(4, 3, 8, 8))) == {"samples"}


def test_pictures_of_a_gan() -> None:
    model, x = gan(), torch.rand(6, 1, 8, 8)
    torch.manual_seed(3)
    pictures = Pictures(num_images=4, steps=5).pictures(model, x)
    sizes = {"samples": (4, 4), "interpolation": (4, 5)}
    assert {name: tuple(rows.shape[:2]) for name, rows in pictures.items()} == sizes
    torch.manual_seed(3)
    torch.testing.assert_close(pictures["samples"].flatten(0, 1), model.sample(16))
    ends = model.averaged_generator(model.draw_noise(4))
    torch.testing.assert_close(pictures["interpolation"][:, 0], ends)
    torch.testing.assert_close(pictures["interpolation"][:, -1], ends.roll(-1, 0))
    assert not torch.allclose(ends, ends.roll(-1, 0), atol=1e-2)


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # tab:blue and tab:orange, of many points on top of each other


def places(pixels: np.ndarray, colour: tuple[int, int, int], low: float, high: float) -> Tensor:
    """Return the points ``(N, 2)`` of a colour in a square plot from ``low`` to ``high``."""
    dark = (pixels < 60).all(2)
    [columns] = np.nonzero(dark.mean(0) > 0.5)  # the frame
    [rows] = np.nonzero(dark.mean(1) > 0.5)
    row, column = np.nonzero(np.abs(pixels.astype(int) - colour).max(2) < 12)
    x = (column - columns.min()) / np.ptp(columns)
    y = (rows.max() - row) / np.ptp(rows)
    return torch.from_numpy(low + (high - low) * np.stack([x, y], 1))


def is_at(found: Tensor, points: Tensor) -> bool:
    """Whether there are found points at every point, and none elsewhere."""
    distances = torch.cdist(found.double(), points.double())
    return bool(len(found)) and bool((distances.min(0).values < 0.05).all() and (distances.min(1).values < 0.1).all())


def test_a_scatter_plot_has_blue_samples_and_orange_examples() -> None:
    samples, examples = torch.tensor([[-1.0, 0.5], [0.5, -1.0]]), torch.tensor([[-2.0, -2.0], [2.0, 2.0], [2.0, -2.0]])
    pixels = np.asarray(point_plot(samples=samples.repeat(9, 1), examples=examples.repeat(9, 1)))
    assert is_at(places(pixels, BLUE, -3, 3), samples)
    assert is_at(places(pixels, ORANGE, -3, 3), examples)


def test_a_scatter_plot_keeps_the_window_of_the_examples() -> None:
    examples, far = torch.tensor([[-2.0, -2.0], [2.0, 2.0]]), torch.tensor([[100.0, 1.0], [1.0, -1.0]])
    pixels = np.asarray(point_plot(samples=far.repeat(9, 1), examples=examples.repeat(9, 1)))
    assert is_at(places(pixels, BLUE, -3, 3), far[1:])


def test_samples_of_a_gan_of_points_are_plotted_with_the_examples(tmp_path: Path) -> None:
    data = Ring(std=1e-3)
    fit(point_gan(Diagonal(), optimizer=still), tmp_path, data=data, callbacks=[Pictures()])
    [pixels] = images(tmp_path, "samples-0001.png")
    assert is_at(places(pixels, BLUE, -3, 3), torch.tensor([[1.2, 1.2], [-1.2, -1.2]]))
    assert is_at(places(pixels, ORANGE, -3, 3), data.modes)


@pytest.mark.filterwarnings("ignore:the generator's values are in")
def test_without_a_datamodule_the_value_range_is_that_of_the_generator(tmp_path: Path) -> None:
    class Grey(nn.Module):
        """Returns grey images."""

        value_range = (-1.0, 1.0)

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, noise: Tensor) -> Tensor:
            return noise.new_zeros(len(noise), 1, 8, 8) + 0 * self.weight

    model = gan(Grey())
    data = DataLoader(TensorDataset(torch.zeros(12, 1, 8, 8)), batch_size=4)
    fit(model, tmp_path, data, callbacks=[Pictures()])
    [pixels] = images(tmp_path, "samples-0001.png")
    assert int(pixels[25, 25, 0]) == pytest.approx(127.5, abs=0.5)
