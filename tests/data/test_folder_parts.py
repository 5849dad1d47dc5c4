"""Folders with a validation part, without classes, and with links from one part to another."""

import numpy as np
import pytest
import torch

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Images
from lit_bottleneck.data.nuisance import Rotation
from lit_bottleneck.models.vae import VAE
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.data.test_image_folder import held, save, write_classes
from tests.quiet import trainer


@pytest.mark.parametrize("in_memory", [True, False])
def test_val_is_used_as_it_is(tmp_path, in_memory):
    written = {part: write_classes(tmp_path / part, n) for part, n in (("train", 6), ("val", 2), ("test", 3))}
    for seed in (0, 1):
        data = Images("folder", tmp_path, in_memory=in_memory, seed=seed)
        assert data.val_size == 4
        for part, images in written.items():
            x, y = held(data, part)
            assert torch.equal(x, images)
            assert y.tolist() == [0] * (len(x) // 2) + [1] * (len(x) // 2)


@pytest.mark.parametrize("val_size", [0, 3, 0.1])
def test_val_and_a_given_val_size_do_not_go_together(tmp_path, val_size):
    for part in ("train", "val", "test"):
        write_classes(tmp_path / part, 2)
    with pytest.raises(ConfigurationError, match=rf"^val_size must be 'auto' .* {tmp_path}/val; got {val_size}$"):
        Images("folder", tmp_path, val_size=val_size)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_without_classes_a_batch_is_x_alone(tmp_path, num_workers):
    written = torch.stack([save(tmp_path / f"{number:02}.png", seed=number) for number in range(20)])
    data = Images("folder", tmp_path, batch_size=4, num_workers=num_workers)
    assert not hasattr(data, "num_classes")
    sizes = {part: len(data.dataset(part)) for part in ("train", "val", "test")}
    assert sizes == {"train": 14, "val": 2, "test": 4}
    [x] = data.test_dataloader()
    assert torch.equal(x, written[data.dataset("test").examples.rows].float() / 255)
    assert torch.equal(data.dataset("test")[1], x[1])
    with pytest.raises(ConfigurationError, match=r"nuisance makes batches \(x, y, factors\): without classes"):
        Images("folder", tmp_path, nuisance=Rotation())


def test_a_vae_trains_on_images_without_classes(tmp_path):
    for part in ("train", "val", "test"):
        for number in range(4):
            save(tmp_path / part / f"{number}.png", seed=number, mode="L")
    data = Images("folder", tmp_path, batch_size=2)
    model = VAE(MLP(48, [], 8), MLPDecoder(4, [], data.dims), latent_dim=4, likelihood="continuous_bernoulli")
    run = trainer()
    run.fit(model, data)
    assert run.global_step == 2
    [measured] = run.test(model, data, verbose=False)
    assert np.isfinite(measured["test/elbo"])


def test_a_file_with_two_links_is_not_trained_and_tested_on(tmp_path):
    write_classes(tmp_path / "train", 3)
    write_classes(tmp_path / "test", 2)
    (tmp_path / "test" / "ant" / "again.png").symlink_to(tmp_path / "train" / "ant" / "000.png")
    data = Images("folder", tmp_path, val_size=0)
    assert {part: len(data.dataset(part)) for part in ("train", "test")} == {"train": 6, "test": 4}
