import re
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Images
from lit_bottleneck.data.downloads import MissingDataError
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


@pytest.mark.parametrize(("sizes", "image_size"), [((40, 100), (30, 20)), ((100, 40), (20, 30)), ((7, 9), (48, 64))])
def test_height_and_width_are_covered_and_the_centre_is_kept(tmp_path, sizes, image_size):
    for name in "ab":
        save(tmp_path / "ant" / f"{name}.png", *sizes)
    data = FolderSource(tmp_path, image_size=list(image_size))
    assert data.dims == (3, *image_size)
    scale = max(wanted / size for wanted, size in zip(image_size, sizes, strict=True))
    image = Image.open(tmp_path / "ant" / "a.png")
    image = image.resize([int(scale * size + 1e-9) for size in sizes[::-1]], Image.Resampling.BILINEAR)
    top, left = (round((size - wanted) / 2) for size, wanted in zip(image.size[::-1], image_size, strict=True))
    box = (left, top, left + image_size[1], top + image_size[0])
    right = torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1)
    assert torch.equal(data.load()[0].inputs[torch.tensor([0])][0], right)


@pytest.mark.parametrize("image_size", [0, -1, 1.5, True, "48", [48], [48, 64, 3], [48, 0], [48, "64"], []])
def test_a_wrong_image_size_is_refused(tmp_path, image_size):
    with pytest.raises(ConfigurationError, match=rf"^image_size must be .*; got {re.escape(repr(image_size))}"):
        Images("folder", tmp_path, image_size=image_size)


@pytest.mark.parametrize("background", [-0.1, 1.5, 255, "white", None, True, float("nan")])
def test_a_wrong_background_is_refused(tmp_path, background):
    with pytest.raises(ConfigurationError, match=rf"^background must be .*; got {re.escape(repr(background))}"):
        Images("folder", tmp_path, background=background)


@pytest.mark.parametrize("modes", [("L", "RGB"), ("RGB", "L"), ("L", "RGBA")])
def test_one_image_in_colour_makes_all_have_three_channels(tmp_path, modes):
    pixels = [save(tmp_path / "ant" / f"{number}.png", mode=mode) for number, mode in enumerate(modes)]
    source = FolderSource(tmp_path)
    assert source.dims == (3, 6, 8)
    images = source.load()[0].inputs[torch.tensor([0, 1])]
    for image, written, mode in zip(images, pixels, modes, strict=True):
        if mode != "RGBA":
            assert torch.equal(image, written.expand(3, 6, 8))


def test_the_channels_are_those_of_all_parts(tmp_path):
    for part, mode in (("train", "L"), ("test", "L"), ("val", "RGB")):
        write_classes(tmp_path / part, per_class=2, mode=mode)
    assert FolderSource(tmp_path).dims[0] == 3


def test_a_ramp_of_16_bits_has_one_channel_and_its_levels(tmp_path):
    ramp = np.linspace(0, 65535, 8).round().astype(np.uint16)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(np.tile(ramp, (6, 1))).save(tmp_path / name / f"{number}.png")
    for in_memory in (True, False):
        data = Images("folder", tmp_path, in_memory=in_memory, value_range=(-1, 1))
        assert data.dims == (1, 6, 8)
        x, _ = next(iter(data.test_dataloader()))
        assert x.dtype == torch.float32
        np.testing.assert_allclose(x, np.broadcast_to(ramp / 65535 * 2 - 1, x.shape), rtol=0, atol=1e-6)
    assert torch.equal(x, next(iter(data.test_dataloader()))[0])  # the held pixels are not changed


def test_deep_and_8_bit_images_together_and_resized(tmp_path):
    colours = save(tmp_path / "ant" / "a.png")
    Image.fromarray(np.full((12, 16), 0.3, dtype=np.float32)).save(tmp_path / "ant" / "b.tif")
    source = FolderSource(tmp_path, image_size=[6, 8])
    images = source.load()[0].inputs[torch.tensor([0, 1])]
    assert torch.equal(images[0], colours.float() / 255)
    torch.testing.assert_close(images[1], torch.full((3, 6, 8), 0.3))


@pytest.mark.parametrize("binarize", ["static", "dynamic"])
def test_deep_images_are_binarised_by_their_grey_level(tmp_path, binarize):
    (tmp_path / "train").mkdir()
    levels = np.full((50, 60), 13107, dtype=np.uint16)  # .2
    for part in ("train", "test"):
        for number in range(8):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(levels).save(tmp_path / part / f"{number}.png")
    drawn = Images("folder", tmp_path, binarize=binarize, val_size=0).dataset("train")[range(8)]
    assert set(drawn.unique().tolist()) == {0, 1}
    assert abs(drawn.mean() - 0.2) < 5 * (0.2 * 0.8 / drawn.numel()) ** 0.5


def test_a_photograph_stored_on_its_side_is_upright_in_pixels_and_dims(tmp_path):
    upright = save(tmp_path / "ant" / "b.png")
    exif = Image.Exif()
    exif[0x112] = 6  # the first row is the right edge
    stored = upright.flip(2).permute(2, 1, 0).contiguous().numpy()
    Image.fromarray(stored).save(tmp_path / "ant" / "a.png", exif=exif)
    source = FolderSource(tmp_path)
    assert source.dims == (3, 6, 8)
    images = source.load()[0].inputs[torch.tensor([0, 1])]
    assert torch.equal(images[0], upright)
    assert torch.equal(images[1], upright)


def test_the_background_is_an_argument(tmp_path):
    for name in "abcde":
        (tmp_path / "ant").mkdir(exist_ok=True)
        Image.new("RGBA", (8, 6), (255, 0, 0, 0)).save(tmp_path / "ant" / f"{name}.png")
    for given, level in (({}, 255), ({"background": 0}, 0), ({"background": 0.2}, 51)):
        x, _ = held(Images("folder", tmp_path, **given), "test")
        assert x.shape == (1, 3, 6, 8)
        assert (x == level).all()


def test_frames_that_are_not_read_are_told(tmp_path, caplog):
    frames = [Image.new("L", (8, 6), level) for level in (40, 200)]
    (tmp_path / "ant").mkdir()
    frames[0].save(tmp_path / "ant" / "pages.tif", save_all=True, append_images=frames[1:])
    with caplog.at_level("INFO"):
        FolderSource(tmp_path)
    assert f"1 files have several frames, such as {tmp_path}/ant/pages.tif: the first frame is read" in caplog.messages


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
    with pytest.raises(MissingDataError, match=r"nowhere is not a folder; expected root/train.*--data.init_args.root"):
        Images("folder", root=tmp_path / "nowhere")


def test_integers_without_a_known_white_are_refused(tmp_path):
    write_classes(tmp_path)
    Image.fromarray(np.zeros((6, 8), dtype=np.int32)).save(tmp_path / "bee" / "int.tif")
    with pytest.raises(ConfigurationError, match=rf"^{tmp_path}/bee/int.tif has Pillow's mode 'I'"):
        Images("folder", root=tmp_path)
