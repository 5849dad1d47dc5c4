"""A folder that is decoded in loader processes is the folder held in memory: the same batches, the same training."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from lightning import Trainer
from lightning.fabric.utilities.seed import pl_worker_init_function
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

from lit_bottleneck import VIBClassifier
from lit_bottleneck.callbacks import RandomStates
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.messages import in_one_line
from lit_bottleneck.data import Images
from lit_bottleneck.data.image_modes import read_image
from lit_bottleneck.data.nuisance import Rotation
from lit_bottleneck.networks import MLP
from tests.cli.resume.trainings import Keep, assert_same, state, train
from tests.data.test_image_folder import save, write_classes

MIXED = {"image_size": [5, 7], "batch_size": 4, "num_workers": 1, "background": 0.5}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes, modes and formats, some of which are turned, have a palette, or are transparent."""
    root: Path = tmp_path_factory.mktemp("images")
    write_classes(root, per_class=6)
    exif = Image.Exif()
    exif[0x112] = 6  # the first row is the right edge
    photograph = Image.open(root / "ant" / "000.png").resize((30, 20), Image.Resampling.BICUBIC)
    photograph.save(root / "ant" / "turned.jpg", exif=exif)
    photograph.quantize(9).save(root / "bee" / "palette.gif")
    photograph.convert("L").save(root / "bee" / "grey.webp")
    save(root / "bee" / "transparent.png", 9, 11, mode="RGBA")
    save(root / "ant" / "both.png", 9, 11, mode="LA")
    return root


@pytest.fixture(scope="module")
def deep(root: Path) -> Path:
    """Return the same with an image of 16 bits."""
    folder = root.with_name("deep")
    shutil.copytree(root, folder)
    levels = np.random.default_rng(0).integers(0, 2**16, (11, 9), dtype=np.uint16)
    Image.fromarray(levels).save(folder / "ant" / "deep.png")
    return folder


def batches(data: Images) -> list[Any]:
    torch.manual_seed(5)  # order, and the seed of loader processes
    loaders = (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader())
    return [list(batch) for loader in loaders for batch in loader]


@pytest.mark.parametrize(
    ("folder", "arguments"),
    [
        ("root", {"value_range": (-1, 1), "predict_part": "train"}),
        ("root", {"nuisance": Rotation(30), "seed": 3}),
        ("root", {"augment": [v2.RandomHorizontalFlip(), v2.RandomCrop([5, 7], 1)], "val_size": 4}),
        ("deep", {"binarize": "static"}),
    ],
)
def test_batches_are_those_of_the_folder_in_memory(
    folder: str, arguments: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue(folder)
    held, decoded = (Images("folder", place, in_memory=kept, **MIXED, **arguments) for kept in (True, False))
    expected = batches(held)
    assert sum(len(y) for _, y, *_ in expected) > 16
    assert_same(batches(decoded), expected)
    rows = torch.tensor([3, 0, 2])
    assert_same(decoded.dataset("train").examples.take(rows), held.dataset("train").examples.take(rows))


def test_each_process_evaluates_the_same_rows(root: Path) -> None:
    parts = []
    for kept in (True, False):
        data = Images("folder", root, in_memory=kept, **MIXED | {"batch_size": 2})
        data.trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
        parts.append(list(data.test_dataloader()))
    assert sum(len(y) for _, y in parts[0]) == 2  # of the four rows
    assert_same(parts[1], parts[0])


def test_a_training_ends_with_the_weights_of_one_from_memory_also_if_it_is_resumed(deep: Path, tmp_path: Path) -> None:
    def model() -> VIBClassifier:
        return VIBClassifier(MLP(3 * 5 * 7, [8], 8), latent_dim=4, num_classes=2)

    def data(in_memory: bool) -> Images:
        return Images("folder", deep, in_memory=in_memory, augment=[v2.RandomHorizontalFlip()], **MIXED)

    whole, rest = Keep(tmp_path), Keep()
    expected = state(*train(model, data(True), [RandomStates(), whole], max_epochs=2))
    assert_same(state(*train(model, data(False), [RandomStates()], max_epochs=2)), expected)
    path = tmp_path / "batch-1-0.ckpt"
    resumed = train(model, data(False), [RandomStates(), rest], max_epochs=2, ckpt_path=path, seed=9)
    assert_same(state(*resumed), expected)
    assert rest.seen == whole.seen[-len(rest.seen) :]
    assert 0 < len(rest.seen) < len(whole.seen) / 2


@pytest.mark.parametrize(("cpus", "devices", "workers"), [(1, 1, 1), (2, 1, 1), (4, 1, 3), (64, 1, 8), (8, 4, 1)])
def test_as_many_processes_decode_as_there_are_cpus_for(
    cpus: int, devices: int, workers: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cpus), raising=False)
    for chosen, in_memory, expected in ((None, False, workers), (None, True, 0), (0, False, 0), (1, False, 1)):
        data = Images("folder", root, in_memory=in_memory, image_size=4, num_workers=chosen)
        if devices > 1:
            data.trainer = Trainer(accelerator="cpu", devices=devices, logger=False, enable_checkpointing=False)
        assert data.train_dataloader().num_workers == expected


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path) -> None:
    write_classes(tmp_path, per_class=5)
    broken = tmp_path / "bee" / "000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = Images("folder", tmp_path, in_memory=False, val_size=0, num_workers=1)
    with pytest.raises(ConfigurationError, match=f"{broken} is not a readable image") as error:
        list(data.train_dataloader()), list(data.test_dataloader())
    assert in_one_line(str(error.value)).startswith(f"{broken} is not a readable image: ")


def test_names_of_any_bytes_are_read(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\n\xc3\xa4 .png")  # no UTF-8
    written = [save(tmp_path / "ant" / name), *(save(tmp_path / "ant" / f"{n}.png") for n in "abcd")]
    data = Images("folder", tmp_path, in_memory=False)
    paths = data.dataset("train").examples.inputs.paths
    assert os.fsencode(tmp_path / "ant" / name) in paths.tolist()
    assert torch.equal(data.dataset("train").examples.inputs[torch.arange(5)], torch.stack(written))


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision:DeprecationWarning")
@pytest.mark.skipif(not hasattr(torchvision.io, "decode_image"), reason="deprecated since torchvision 0.29")
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_those_of_torchvisions_decoder(mode: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png", 40, 31, mode=mode)
    smooth = Image.open(tmp_path / "a.png").resize((70, 50), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=90)
    for name, most in (("a.png", 0), ("a.jpg", 4)):  # two builds of libjpeg may round differently
        other = torchvision.io.decode_image(str(tmp_path / name))
        ours = pil_to_tensor(read_image(str(tmp_path / name), 1.0))
        assert (ours.int() - other.int()).abs().max() <= most


def test_loader_processes_flush_denormals_as_the_process_does_that_starts_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Images("folder", root, in_memory=False, **MIXED)
    smallest = torch.ones(1, dtype=torch.int32).view(torch.float32)
    assert data.train_dataloader().worker_init_fn is None
    torch.set_flush_denormal(True)
    try:
        begin: Any = data.train_dataloader().worker_init_fn
        torch.set_flush_denormal(False)
        assert smallest * 1.0 > 0
        monkeypatch.setenv("PL_SEED_WORKERS", "1")
        seeds = []
        for start in (begin, lambda worker: pl_worker_init_function(worker, 0)):
            torch.manual_seed(7)
            start(2)
            seeds.append((torch.initial_seed(), np.random.rand()))
        assert smallest * 1.0 == 0
        assert seeds[0] == seeds[1]
    finally:
        torch.set_flush_denormal(False)
