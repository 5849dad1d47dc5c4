from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Images
from lit_bottleneck.data.image_folder import MEMORY_LIMIT, FolderSource


def save(path, height=6, width=8, mode="RGB", seed=0):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels.reshape(height, width, -1)).permute(2, 0, 1)


def write_classes(root, per_class=10, classes=("ant", "bee"), **arguments):
    """Write images class by class, and return them in this order."""
    return torch.stack(
        [
            save(root / name / f"{position:03}.png", seed=100 * number + position, **arguments)
            for number, name in enumerate(classes)
            for position in range(per_class)
        ]
    )


def held(data, part):
    dataset = data.dataset(part)
    x, y = dataset.__getitems__(range(len(dataset)))
    return x.mul(255).round().to(torch.uint8), y


@pytest.mark.parametrize("in_memory", [None, True, False])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_train_and_test_folders_are_read_pixel_for_pixel(tmp_path, mode, in_memory):
    training = write_classes(tmp_path / "train", mode=mode)
    test = write_classes(tmp_path / "test", per_class=3, mode=mode)
    data = Images("folder", root=tmp_path, val_size=0, in_memory=in_memory)
    assert (data.dims, data.num_classes) == ((1 if mode == "L" else 3, 6, 8), 2)
    x, y = held(data, "train")
    assert torch.equal(x, training)
    assert y.tolist() == [0] * 10 + [1] * 10  # alphabetical
    x, y = held(data, "test")
    assert torch.equal(x, test)
    assert y.tolist() == [0] * 3 + [1] * 3


def test_without_a_test_folder_a_fixed_stratified_fifth_is_tested_on(tmp_path):
    images = write_classes(tmp_path)
    first, other = (Images("folder", root=tmp_path, val_size=4, seed=seed) for seed in (0, 1))
    rows = {part: first.dataset(part).examples.rows.tolist() for part in ("train", "val", "test")}
    assert {part: len(chosen) for part, chosen in rows.items()} == {"train": 12, "val": 4, "test": 4}
    assert sorted(chain(*rows.values())) == list(range(20))
    x, y = held(first, "test")
    assert torch.equal(x, images[rows["test"]])
    assert y.tolist() == [0, 0, 1, 1]
    assert torch.equal(x, held(other, "test")[0])
    assert rows["val"] != other.dataset("val").examples.rows.tolist()


def test_images_decoded_on_request_are_binarised_like_those_in_memory(tmp_path):
    write_classes(tmp_path)
    drawn = [held(Images("folder", tmp_path, binarize="static", in_memory=kept), "train")[0] for kept in (True, False)]
    assert torch.equal(*drawn)
    assert set(drawn[0].unique().tolist()) == {0, 255}


def test_by_default_images_up_to_the_limit_are_in_memory(tmp_path, monkeypatch):
    write_classes(tmp_path)
    size = 20 * 3 * 6 * 8
    assert MEMORY_LIMIT == 2 * 2**30
    monkeypatch.setattr("lit_bottleneck.data.image_folder.MEMORY_LIMIT", size)
    assert FolderSource(tmp_path).in_memory
    monkeypatch.setattr("lit_bottleneck.data.image_folder.MEMORY_LIMIT", size - 1)
    assert not FolderSource(tmp_path).in_memory
    assert FolderSource(tmp_path, in_memory=True).in_memory


def test_image_size_brings_all_images_to_one_size(tmp_path):
    save(tmp_path / "ant" / "wide.png", 6, 12)
    save(tmp_path / "ant" / "tall.png", 20, 10)
    for name in "abc":
        save(tmp_path / "bee" / f"{name}.png", 4, 4)
    data = Images("folder", root=tmp_path, image_size=4, val_size=0)
    assert data.dims == (3, 4, 4)
    assert held(data, "train")[0].shape[1:] == (3, 4, 4)


def test_cropping_keeps_the_centre(tmp_path):
    picture = save(tmp_path / "ant" / "a.png", 4, 8)
    save(tmp_path / "ant" / "b.png", 4, 8)
    everything, _ = FolderSource(tmp_path, image_size=4).load()
    assert torch.equal(everything.inputs[torch.tensor([0])][0], picture[:, :, 2:6])


@pytest.mark.parametrize(("first", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3)])
def test_the_first_image_decides_the_channels(tmp_path, first, channels):
    save(tmp_path / "ant" / "a.png", mode=first)
    save(tmp_path / "ant" / "b.png", mode="RGB" if first == "L" else "L")
    everything, _ = FolderSource(tmp_path).load()
    assert everything.inputs[torch.tensor([0, 1])].shape == (2, channels, 6, 8)


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_image_of_another_size_is_refused(tmp_path, in_memory):
    write_classes(tmp_path)
    save(tmp_path / "bee" / "odd.png", 7, 8)
    data = Images("folder", root=tmp_path, in_memory=in_memory, val_size=0)
    with pytest.raises(ConfigurationError, match=r"odd.png has 7 x 8 pixels, the first image 6 x 8; image_size="):
        held(data, "train"), held(data, "test")


def test_an_unreadable_image_is_refused(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "bee" / "broken.png").write_bytes((tmp_path / "bee" / "000.png").read_bytes()[:60])
    with pytest.raises(ConfigurationError, match=r"bee/broken.png is not a readable image"):
        Images("folder", root=tmp_path).setup()
    (tmp_path / "ant" / "000.png").write_text("not an image")
    with pytest.raises(ConfigurationError, match=r"ant/000.png is not a readable image"):
        Images("folder", root=tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder; expected root/train.*--data.init_args.root"):
        Images("folder", root=tmp_path / "nowhere")


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("nothing here")
    with pytest.raises(ConfigurationError, match=rf"{tmp_path} has no folders of images; expected root/train"):
        Images("folder", root=tmp_path)


def test_an_empty_class_is_refused(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ConfigurationError, match=rf"{tmp_path} .*classes cat"):
        Images("folder", root=tmp_path)


def test_train_and_test_must_have_the_same_classes(tmp_path):
    write_classes(tmp_path / "train", classes=("ant", "bee"))
    write_classes(tmp_path / "test", classes=("ant", "cat"))
    with pytest.raises(ConfigurationError, match=r"same classes; they differ in \['bee', 'cat'\]"):
        Images("folder", root=tmp_path)


def test_train_without_test_is_refused(tmp_path):
    write_classes(tmp_path / "train")
    with pytest.raises(ConfigurationError, match=r"train exists but .*test does not"):
        Images("folder", root=tmp_path)
