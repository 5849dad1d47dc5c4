"""Shards of litdata: every image once, in another order each epoch, and a resumed run is the run without a stop."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_bottleneck import VIBClassifier
from lit_bottleneck.callbacks import RandomStates
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Shards
from lit_bottleneck.networks import MLP
from tests.cli.resume.cut_runs import callback, cut
from tests.cli.resume.trainings import Keep, assert_same, state, train
from tests.data.written_shards import images, write_samples, write_shards
from tests.started import checkpoints

SIZES = {"train": 41, "val": 9, "test": 10}
pytestmark = pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("shards")
    write_shards(root, SIZES, (3, 4, 5))
    return root


def rows(loader: Any) -> list[int]:
    return [int(row) for x, _ in loader for row in (x[:, 0, 0, 0] * 255).round()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_image_is_read_once_in_an_epoch(root: Path, num_workers: int) -> None:
    data = Shards(str(root), batch_size=4, num_workers=num_workers, seed=1)
    loader = data.train_dataloader()
    assert data.dims == (3, 4, 5)
    first, second = rows(loader), rows(loader)
    assert sorted(first) == sorted(second) == list(range(41))
    assert list(range(41)) != first != second
    assert first != rows(Shards(str(root), batch_size=4, num_workers=num_workers, seed=2).train_dataloader())


def test_test_images_are_in_order_with_their_labels(root: Path) -> None:
    [(x, y)] = Shards(str(root), batch_size=16).predict_dataloader()
    assert torch.equal(x, images(10, (3, 4, 5)).float() / 255)
    assert y.tolist() == [row % 3 for row in range(10)]


@pytest.mark.parametrize(
    ("num_workers", "stops"),
    [(0, ("batch-0-2", "batch-1-7")), pytest.param(2, ("batch-0-2",), marks=pytest.mark.slow)],
)
def test_a_training_resumed_within_an_epoch_ends_with_the_same_weights(
    num_workers: int, stops: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    def model() -> VIBClassifier:
        return VIBClassifier(MLP(3 * 4 * 5, [8], 8), latent_dim=4, num_classes=3)

    def data() -> Shards:
        return Shards(str(root), batch_size=4, num_workers=num_workers)

    whole = Keep(tmp_path)
    expected = state(*train(model, data(), [RandomStates(), whole], max_epochs=3))
    assert len(whole.seen) == 33
    for name in stops:  # an epoch or more follow
        rest = Keep()
        path = tmp_path / f"{name}.ckpt"
        found = state(*train(model, data(), [RandomStates(), rest], max_epochs=3, ckpt_path=path, seed=9))
        assert rest.seen == whole.seen[-len(rest.seen) :]
        assert_same(found, expected)


@pytest.mark.slow
def test_the_recipe_stopped_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data" / "shards", {"train": 20, "val": 4, "test": 4})
    point = callback("lit_bottleneck.callbacks.ResumePoint", every_n_steps=2)
    quiet = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1}
    Path("more.yaml").write_text(
        yaml.safe_dump({"trainer": quiet | {"callbacks": [point, cut("on_train_batch_start", 0, 4)]}})
    )
    recipe = [f"--config={recipe_paths()['vib_resnet18_shards']}", "--config=more.yaml"]
    recipe += ["--data.init_args.batch_size=4", "--data.init_args.num_workers=1", "--model.init_args.num_classes=3"]
    main(["fit", *recipe, "--trainer.logger.init_args.version=whole"])
    Path("fuse").touch()
    with pytest.raises(InterruptedError):
        main(["fit", *recipe, "--trainer.logger.init_args.version=stopped"])
    runs = Path("runs", "vib_resnet18_shards")
    assert torch.load(runs / "stopped" / "resume.ckpt", weights_only=True)["global_step"] == 3
    main(["resume", str(runs / "stopped")])
    whole, stopped = checkpoints(runs / "whole"), checkpoints(runs / "stopped")
    assert_same(stopped, whole)
    assert len(whole) == 1
    assert (runs / "whole" / "metrics.csv").read_text() == (runs / "stopped" / "metrics.csv").read_text()


def test_without_litdata_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(ImportError, match=r"needs the package litdata: pip install 'lit_bottleneck\[shards\]'"):
        Shards(str(root)).setup()


def test_a_missing_or_empty_part_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": 2, "val": 2})
    with pytest.raises(ConfigurationError, match=rf"^root='{tmp_path}' needs shards of litdata in {tmp_path}/test: "):
        Shards(str(tmp_path)).setup()
    (tmp_path / "test").mkdir()
    with pytest.raises(ConfigurationError, match=rf"shards of litdata in {tmp_path}/test: .* index.json"):
        Shards(str(tmp_path)).setup()


class Unpickled:
    """Fails the test if it is read."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was read",)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ((torch.zeros(3, 4, 5), 1), r"must hold images, uint8 \(C, H, W\); its first is torch.float32 \(3, 4, 5\)"),
        ((torch.zeros(4, 5, dtype=torch.uint8), 1), r"its first is torch.uint8 \(4, 5\)"),
        ({"image": torch.zeros(3, 4, 5, dtype=torch.uint8), "label": 1}, r"in a builtins\.dict"),
        ("text", r"/train must hold pairs of an image \(a tensor\) and a label \(an int\); got the formats \['str'\]"),
        ((torch.zeros(3, 4, 5), 0.5), r"got the formats \['tensor', 'float'\]"),
        ((Unpickled(), 1), r"got the formats \['pickle', 'int'\]"),
    ],
)  # fmt: skip
def test_shards_of_other_samples_are_refused_and_no_pickle_is_read(sample: Any, words: str, tmp_path: Path) -> None:
    for part in SIZES:
        write_samples(tmp_path / part, [sample] * 2)
    with pytest.raises(ConfigurationError, match=words):
        Shards(str(tmp_path)).setup()


def test_an_image_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": 2, "test": 2}, (3, 4, 5))
    write_shards(tmp_path, {"val": 2}, (3, 5, 4))
    with pytest.raises(ConfigurationError, match=r"/val must hold images of uint8 \(3, 4, 5\).*uint8 \(3, 5, 4\)$"):
        list(Shards(str(tmp_path)).val_dataloader())


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("num_workers", -1), ("seed", 0.5)])
def test_arguments_out_of_range_are_refused(name: str, value: float, root: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        Shards(str(root), **{name: value})
