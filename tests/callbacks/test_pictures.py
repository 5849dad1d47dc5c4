"""Pictures: which, when, where they go, and that drawing changes nothing of the training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.callbacks import Pictures
from lit_bottleneck.callbacks.pictures import image_grid, point_plot
from lit_bottleneck.data import Digits, Ring
from lit_bottleneck.networks import MLP, MLPDecoder

NAMES = ("interpolation", "reconstructions", "samples", "traversal")


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(MLP(64, [16], 8), MLPDecoder(4, [16], (1, 8, 8)), latent_dim=4, likelihood="continuous_bernoulli")


def still(parameters: Any) -> torch.optim.Optimizer:
    """An optimizer that trains nothing."""
    return torch.optim.SGD(parameters, lr=0.0)


def gan() -> VDBGAN:
    torch.manual_seed(0)
    generator = MLPDecoder(4, [16], (1, 8, 8))
    return VDBGAN(generator, MLP(64, [16], 6), latent_dim=3, noise_dim=4, beta=0.1, optimizer=still)


class Diagonal(nn.Module):
    """Makes one of two points, by the sign of the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor([1.2, 1.2]))

    def forward(self, noise: Tensor) -> Tensor:
        return noise[:, :1].sign() * self.point


def gan_of_points() -> VDBGAN:
    torch.manual_seed(0)
    return VDBGAN(Diagonal(), MLP(2, [16], 6), latent_dim=3, noise_dim=1, beta=0.1, optimizer=still)


GAN_NAMES = ("interpolation", "samples")
CASES = [
    pytest.param(vae, Digits, NAMES, id="vae"),
    pytest.param(gan, Digits, GAN_NAMES, id="gan"),
    pytest.param(gan_of_points, Ring, ("samples",), id="points"),
]


def fit(model: LightningModule, folder: Path, data: Any = None, epochs: int = 1, **kwargs: Any) -> Trainer:
    trainer = Trainer(
        **{
            "default_root_dir": folder,
            "logger": CSVLogger(folder, name="run"),
            "max_epochs": epochs,
            "limit_train_batches": 3,
            "accelerator": "cpu",
            "devices": 1,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
        }
        | kwargs
    )
    if isinstance(data, DataLoader):
        trainer.fit(model, data, data)
    else:
        trainer.fit(model, datamodule=Digits() if data is None else data)
    return trainer


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.png"))


def test_they_are_drawn_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    fit(vae(), tmp_path, epochs=5, callbacks=[Pictures(every_n_epochs=2)])
    assert files(tmp_path / "run/version_0/pictures") == sorted(
        f"{name}-{epoch:04d}.png" for name in NAMES for epoch in (2, 4, 5)
    )


def test_they_are_drawn_of_training_images_where_nothing_is_held_out(tmp_path: Path) -> None:
    fit(vae(), tmp_path, data=Digits(val_size=0), callbacks=[Pictures()])
    assert files(tmp_path) == [f"{name}-0001.png" for name in NAMES]


def test_drawing_changes_nothing_of_the_training(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [Pictures(every_n_epochs=1)]):
        seed_everything(1, verbose=False)
        model = vae()
        fit(model, tmp_path, epochs=2, callbacks=callbacks)
        weights.append(torch.cat([weight.flatten() for weight in model.parameters()]))
        assert model.training
    assert torch.equal(*weights)


def test_what_is_in_them() -> None:
    model, x = vae().eval(), torch.rand(6, 1, 8, 8)
    pictures = Pictures(num_images=4, steps=5).pictures(model, x)
    assert {name: tuple(rows.shape[:2]) for name, rows in pictures.items()} == {
        "samples": (4, 4),
        "reconstructions": (2, 4),
        "traversal": (4, 5),
        "interpolation": (4, 5),
    }
    assert torch.equal(pictures["reconstructions"][0], x[:4])
    reconstructions = model.reconstruct(x[:4])
    torch.testing.assert_close(pictures["reconstructions"][1], reconstructions)
    torch.testing.assert_close(pictures["interpolation"][:, 0], reconstructions)
    torch.testing.assert_close(pictures["interpolation"][:, -1], reconstructions.roll(-1, 0))


def test_a_traversal_moves_one_dimension_after_another_by_its_rate() -> None:
    model, x = vae().eval(), torch.rand(6, 1, 8, 8)
    code = model.encode(x, sample=False)
    order = code.kl.mean(0).argsort(descending=True)
    traversal = Pictures(num_images=6, steps=3).pictures(model, x)["traversal"]
    for row, dimension in zip(traversal, order, strict=True):
        for image, value in zip(row, (-3.0, 0.0, 3.0), strict=True):
            z = code.mean[:1].clone()
            z[0, dimension] = value
            torch.testing.assert_close(image, model.decode(z)[0])


def test_samples_are_of_the_same_noise_in_every_epoch(tmp_path: Path) -> None:
    model = vae()
    model.optimizer = still
    fit(model, tmp_path, epochs=2, callbacks=[Pictures(every_n_epochs=1)])
    first, second = (np.asarray(Image.open(path)) for path in sorted(tmp_path.rglob("samples-*.png")))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("model", "data", "names"), CASES)
def test_they_are_files(model: Any, data: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    fit(model(), tmp_path, data=data(), callbacks=[Pictures()])
    assert files(tmp_path / "run/version_0/pictures") == [f"{name}-0001.png" for name in names]


@pytest.mark.parametrize(("model", "data", "names"), CASES)
def test_tensorboard_shows_them(model: Any, data: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="run")
    fit(model(), tmp_path, data=data(), logger=logger, callbacks=[Pictures()])
    events = EventAccumulator(logger.log_dir).Reload()
    assert sorted(events.Tags()["images"]) == [f"pictures/{name}" for name in names]
    file = Image.open(tmp_path / "run/version_0/pictures/samples-0001.png")
    assert (events.Images("pictures/samples")[0].width, events.Images("pictures/samples")[0].height) == file.size


@pytest.mark.parametrize(("model", "data", "names"), CASES)
def test_wandb_shows_them_as_they_are(model: Any, data: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    try:
        fit(model(), tmp_path, data=data(), logger=logger, callbacks=[Pictures()])
        summary = dict(logger.experiment.summary)
        assert sorted(name for name in summary if name.startswith("pictures/")) == [
            f"pictures/{name}" for name in names
        ]
        folder = Path(logger.experiment.dir)
        for name in names:
            [shown] = summary[f"pictures/{name}"]["filenames"]
            [file] = tmp_path.rglob(f"pictures/{name}-0001.png")
            pixels = np.asarray(Image.open(folder / shown))
            assert np.array_equal(pixels, np.asarray(Image.open(file)))
            assert pixels.max() > pixels.min()
    finally:
        wandb.finish()


def test_a_classifier_has_no_pictures(tmp_path: Path) -> None:
    fit(VIBClassifier(MLP(64, [], 8), latent_dim=4, num_classes=10), tmp_path, callbacks=[Pictures()])
    assert files(tmp_path) == []


@pytest.mark.filterwarnings("ignore:Pictures draws images")
def test_vectors_are_not_drawn_and_that_is_said(tmp_path: Path) -> None:
    vectors = DataLoader(TensorDataset(torch.rand(8, 64)), batch_size=4)
    model = VAE(MLP(64, [], 8), MLP(4, [], 64), latent_dim=4, likelihood="continuous_bernoulli")
    with pytest.warns(UserWarning, match=r"draws images .* samples are \(64,\)"):
        fit(model, tmp_path, data=vectors, callbacks=[Pictures()])
    assert files(tmp_path) == []


def test_a_grid_has_its_images_in_rows_and_columns_and_in_range() -> None:
    rows = torch.full((2, 3, 1, 64, 64), -1.0)
    rows[1, 2] = 1.0
    rows[0, 1] = 5.0  # cut off
    pixels = np.asarray(image_grid(rows, (-1.0, 1.0)))
    assert pixels.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    tiles = [[int(pixels[2 + 66 * row + 30, 2 + 66 * column + 30, 0]) for column in range(3)] for row in range(2)]
    assert tiles == [[0, 255, 0], [0, 0, 255]]


def test_small_images_are_magnified_and_colours_kept() -> None:
    rows = torch.zeros(1, 2, 3, 8, 8)
    rows[0, 0, 1, :4] = 1
    pixels = np.asarray(image_grid(rows))
    assert pixels.shape == (52, 102, 3)
    assert pixels[10, 25].tolist() == [0, 255, 0]
    assert pixels[40, 25].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs"),
        ({"num_images": 0}, "num_images"),
        ({"steps": 1}, "steps"),
        ({"mode": "straight"}, "mode must be one of"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pictures(**arguments)


def test_a_module_that_only_samples_has_samples() -> None:
    class Generator(LightningModule):
        def sample(self, n: int) -> Tensor:
            return torch.rand(n, 3, 8, 8)

    assert set(Pictures(num_images=2).pictures(Generator(), torch.rand(4, 3, 8, 8))) == {"samples"}


def test_a_gan_has_samples_and_ways_from_one_draw_of_noise_to_another() -> None:
    model, x = gan(), torch.rand(6, 1, 8, 8)
    torch.manual_seed(3)
    pictures = Pictures(num_images=4, steps=5).pictures(model, x)
    assert {name: tuple(rows.shape[:2]) for name, rows in pictures.items()} == {
        "samples": (4, 4),
        "interpolation": (4, 5),
    }
    torch.manual_seed(3)
    torch.testing.assert_close(pictures["samples"].flatten(0, 1), model.sample(16))
    ends = model.averaged_generator(model.draw_noise(4))
    torch.testing.assert_close(pictures["interpolation"][:, 0], ends)
    torch.testing.assert_close(pictures["interpolation"][:, -1], ends.roll(-1, 0))
    assert not torch.allclose(ends, ends.roll(-1, 0), atol=1e-2)


@pytest.mark.parametrize(("model", "data", "names"), CASES[1:])
def test_those_of_a_gan_are_of_the_same_noise_in_every_epoch(
    model: Any, data: Any, names: tuple[str, ...], tmp_path: Path
) -> None:
    fit(model(), tmp_path, data=data(), epochs=2, callbacks=[Pictures(every_n_epochs=1)])
    for name in names:
        first, second = (np.asarray(Image.open(path)) for path in sorted(tmp_path.rglob(f"{name}-*.png")))
        assert np.array_equal(first, second)


@pytest.mark.parametrize("model", [gan, vae])
def test_another_draw_of_noise_would_be_another_picture(model: Any, monkeypatch: Any, tmp_path: Path) -> None:
    model = model()
    model.optimizer = still
    for seed in (0, 1):
        monkeypatch.setattr("lit_bottleneck.callbacks.pictures._SEED", seed)
        fit(model, tmp_path / str(seed), callbacks=[Pictures()])
    first, second = (np.asarray(Image.open(path)) for path in sorted(tmp_path.rglob("samples-*.png")))
    assert not np.array_equal(first, second)


def test_drawing_changes_nothing_of_the_training_of_a_gan(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [Pictures(every_n_epochs=1)]):
        seed_everything(1, verbose=False)
        model = gan()
        model.optimizer = None
        fit(model, tmp_path, epochs=2, callbacks=callbacks)
        weights.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert torch.equal(*weights)


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # tab:blue and tab:orange, of many points on top of each other


def places(pixels: np.ndarray, colour: tuple[int, int, int], low: float, high: float) -> Tensor:
    """Where a square plot from ``low`` to ``high`` has a colour: points ``(N, 2)``."""
    dark = (pixels < 60).all(2)
    [columns] = np.nonzero(dark.mean(0) > 0.5)  # the frame
    [rows] = np.nonzero(dark.mean(1) > 0.5)
    row, column = np.nonzero(np.abs(pixels.astype(int) - colour).max(2) < 12)
    x = (column - columns.min()) / np.ptp(columns)
    y = (rows.max() - row) / np.ptp(rows)
    return torch.from_numpy(low + (high - low) * np.stack([x, y], 1))


def is_at(found: Tensor, points: Tensor) -> bool:
    """Whether something was found at every point, and nothing elsewhere."""
    distances = torch.cdist(found.double(), points.double())
    return bool(len(found)) and bool((distances.min(0).values < 0.05).all() and (distances.min(1).values < 0.1).all())


def test_a_scatter_plot_has_blue_samples_and_orange_examples_where_they_are() -> None:
    samples, examples = torch.tensor([[-1.0, 0.5], [0.5, -1.0]]), torch.tensor([[-2.0, -2.0], [2.0, 2.0], [2.0, -2.0]])
    pixels = np.asarray(point_plot(samples=samples.repeat(9, 1), examples=examples.repeat(9, 1)))
    assert is_at(places(pixels, BLUE, -3, 3), samples)
    assert is_at(places(pixels, ORANGE, -3, 3), examples)


def test_a_scatter_plot_keeps_the_window_of_the_examples() -> None:
    examples, far = torch.tensor([[-2.0, -2.0], [2.0, 2.0]]), torch.tensor([[100.0, 1.0], [1.0, -1.0]])
    pixels = np.asarray(point_plot(samples=far.repeat(9, 1), examples=examples.repeat(9, 1)))
    assert is_at(places(pixels, BLUE, -3, 3), far[1:])


def test_the_samples_of_a_gan_of_points_are_plotted_over_the_examples(tmp_path: Path) -> None:
    data = Ring(std=1e-3)
    fit(gan_of_points(), tmp_path, data=data, callbacks=[Pictures()])
    [path] = tmp_path.rglob("samples-0001.png")
    pixels = np.asarray(Image.open(path))
    assert is_at(places(pixels, BLUE, -3, 3), torch.tensor([[1.2, 1.2], [-1.2, -1.2]]))
    assert is_at(places(pixels, ORANGE, -3, 3), data.modes)


@pytest.mark.filterwarnings("ignore:the generator's values are in")
def test_without_a_datamodule_the_generator_tells_black_and_white(tmp_path: Path) -> None:
    class Grey(nn.Module):
        """Makes grey images."""

        value_range = (-1.0, 1.0)

        def __init__(self) -> None:
            super().__init__()
            self.nothing = nn.Parameter(torch.zeros(()), requires_grad=True)

        def forward(self, noise: Tensor) -> Tensor:
            return noise.new_zeros(len(noise), 1, 8, 8) + 0 * self.nothing

    model = VDBGAN(Grey(), MLP(64, [], 4), latent_dim=2, noise_dim=3)
    data = DataLoader(TensorDataset(torch.zeros(12, 1, 8, 8)), batch_size=4)
    fit(model, tmp_path, data, callbacks=[Pictures()])
    [path] = tmp_path.rglob("samples-0001.png")
    assert np.asarray(Image.open(path))[25, 25, 0] == pytest.approx(127, abs=1)
