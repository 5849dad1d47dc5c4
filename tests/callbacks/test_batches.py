"""Callbacks read a batch as the model does: dictionaries under names of one's own, arrays, float64, further forms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VAE, VIBClassifier
from lit_bottleneck.callbacks import Information, Paths, Pictures, SampleQuality
from lit_bottleneck.metrics import RawFeatures
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.quiet import trainer

Y = torch.arange(8) % 3
X = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
NAMED = [{"image": x.double().numpy(), "label": y[None].numpy()} for x, y in zip(X, Y, strict=True)]


class Nested(VAE):
    """A model of batches of its own form."""

    def inputs(self, batch: Any) -> Any:
        return batch["data"]["image"]


def outcome(callback: Callback, kind: type, data: Any, folder: Path, **kwargs: Any) -> tuple[dict[str, bytes], Any]:
    """Return the files and the logged metrics of a training and a test."""
    torch.manual_seed(0)
    networks = (MLP(64, [8], 8), 4, 3) if kind is VIBClassifier else (MLP(64, [8], 8), MLPDecoder(4, [8], (1, 8, 8)), 4)
    model = kind(*networks, **kwargs) if kind is VIBClassifier else kind(*networks, "gaussian", **kwargs)
    run, loader = trainer(callbacks=[callback], default_root_dir=folder), DataLoader(data, batch_size=4)
    run.fit(model, loader, loader)
    run.test(model, loader, verbose=False)
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}, run.callback_metrics


def quality() -> SampleQuality:
    return SampleQuality(RawFeatures(), num_samples=8, every_n_epochs=1)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: Pictures(num_images=2, steps=2), VAE),
        (quality, VAE),
        (Information, VAE),
        (lambda: Paths(steps=3, num_pairs=2), VIBClassifier),
    ],
)
def test_batches_under_names_of_ones_own_are_measured_as_x_and_y(make: Any, kind: type, tmp_path: Path) -> None:
    files, logged = outcome(make(), kind, NAMED, tmp_path / "named", batch_keys=("image", "label"))
    expected_files, expected = outcome(make(), kind, TensorDataset(X, Y), tmp_path / "plain")
    torch.testing.assert_close(logged, expected)
    assert files == expected_files
    assert bool(files) == (kind is VAE and isinstance(make(), Pictures))


def test_training_examples_of_a_form_of_their_own_are_compared_with_samples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scores: list[dict[str, Tensor]] = []
    for kind, data in ((Nested, [{"data": {"image": x}} for x in X]), (VAE, TensorDataset(X))):
        torch.manual_seed(0)
        model = kind(MLP(64, [8], 8), MLPDecoder(4, [8], (1, 8, 8)), 4, "gaussian")
        run = trainer(callbacks=[quality()], default_root_dir=tmp_path)
        run.fit(model, DataLoader(data, batch_size=4))
        scores.append({name: value for name, value in run.callback_metrics.items() if "raw" in name})
    assert scores[0]
    torch.testing.assert_close(scores[0], scores[1])
