"""Each mode of Pillow by its meaning: compared with what was written."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.image_modes import read_header, read_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 8), dtype=np.uint16)
FLOATS = RNG.random((6, 8), dtype=np.float32)


def read(path: Path, background: float = 1.0) -> NDArray[Any]:
    """What ``read_image`` returns, and ``read_header`` announces."""
    image = read_image(str(path), background)
    assert read_header(str(path), background).mode == image.mode
    return np.asarray(image)


def over(colours: NDArray[Any], alpha: NDArray[Any], background: float) -> NDArray[Any]:
    share = alpha.astype(np.float64) / 255
    share = share[..., None] if colours.ndim == 3 else share
    return np.round(share * colours + (1 - share) * round(255 * background)).astype(np.uint8)


def png(depth: int, colour_type: int, samples: NDArray[Any]) -> bytes:
    """A PNG file of 16-bit samples ``(H, W, C)``, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_grey_levels_and_bits(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(GREY > 127).save(tmp_path / "bits.png")
    assert np.array_equal(read(tmp_path / "grey.png"), GREY)
    assert np.array_equal(read(tmp_path / "bits.png"), np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_colours(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", lossless=True)
    assert np.array_equal(read(tmp_path / f"a.{suffix}"), RGB)


@pytest.mark.parametrize("mode", ["RGBX", "CMYK", "YCbCr", "HSV"])
def test_other_colours_as_pillow_converts_them(tmp_path: Path, monkeypatch: Any, mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    if mode in ("HSV", "YCbCr"):  # of which there are no files, or none that an older Pillow reads
        (tmp_path / "a.tif").touch()
        monkeypatch.setattr(image, "close", lambda: None)
        monkeypatch.setattr("PIL.Image.open", lambda file: image)
    else:
        image.save(tmp_path / "a.tif")
    shown = read(tmp_path / "a.tif")
    exact = {"RGBX": 0, "CMYK": 0, "YCbCr": 3, "HSV": 8}[mode]  # levels lost by the conversion there and back
    assert np.abs(shown.astype(int) - RGB).max() <= exact


def test_cmyk_is_the_light_that_the_inks_leave(tmp_path: Path) -> None:
    inks = RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    Image.frombytes("CMYK", (8, 6), inks.tobytes()).save(tmp_path / "a.tif")
    left = 1 - inks.astype(np.float64) / 255
    assert np.abs(read(tmp_path / "a.tif") - 255 * left[..., :3] * left[..., 3:]).max() <= 0.51


def test_lab_is_converted_by_its_profile(tmp_path: Path) -> None:
    lab = np.array([[[0, 0, 0], [255, 0, 0], [136, 80, 67]]], dtype=np.uint8)  # black, white, red
    Image.frombytes("LAB", (3, 1), lab.tobytes()).save(tmp_path / "a.tif")
    shown = read(tmp_path / "a.tif").astype(int)
    assert np.abs(shown - [[[0, 0, 0], [255, 255, 255], [255, 0, 0]]]).max() < 12


@pytest.mark.parametrize("background", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparency_is_composed_on_the_background(tmp_path: Path, suffix: str, background: float) -> None:
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]).save(tmp_path / f"grey.{suffix}")
    Image.fromarray(np.dstack([RGB, ALPHA])).save(tmp_path / f"colour.{suffix}")
    for name, written in (("grey", GREY), ("colour", RGB)):
        shown, right = read(tmp_path / f"{name}.{suffix}", background), over(written, ALPHA, background)
        assert np.abs(shown.astype(int) - right).max() <= 1
        assert (shown == right).mean() > 0.99


def test_hidden_colours_do_not_come_in(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, np.zeros_like(ALPHA)])).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png", 0.25) == 64).all()
    assert (read(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("colours", [GREY, RGB], ids=["La", "RGBa"])
def test_premultiplied_colours(tmp_path: Path, colours: NDArray[Any]) -> None:
    stored = over(colours, ALPHA, 0.0)
    Image.fromarray(np.dstack([stored, ALPHA])).save(tmp_path / "a.tif")
    of_alpha = struct.pack("<HHI", 338, 3, 1)  # the tag that tells how: 2 beside the colours, 1 multiplied into them
    file = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(file.replace(of_alpha + b"\2", of_alpha + b"\1"))
    if colours is GREY:
        try:
            assert Image.open(tmp_path / "a.tif").mode == "La"
        except UnidentifiedImageError:
            pytest.skip("Pillow before 12.1 reads no La")
    right = over(colours, ALPHA, 1.0)
    assert np.abs(read(tmp_path / "a.tif").astype(int) - right).max() <= 2  # the file has whole levels


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9)), ("I;16", 700)])
def test_a_transparent_colour_of_png(tmp_path: Path, mode: str, colour: Any) -> None:
    written = {"L": GREY, "RGB": RGB, "I;16": DEEP}[mode].copy()
    written[2, 3] = colour
    Image.fromarray(written).save(tmp_path / "a.png", transparency=colour)
    shown = read(tmp_path / "a.png", 0.0)
    right = written / 65535 if mode == "I;16" else written.copy()
    right[2, 3] = 0
    np.testing.assert_allclose(shown, right, rtol=0, atol=1e-7)


@pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
def test_a_palette_is_grey_if_its_pixels_are(tmp_path: Path, suffix: str) -> None:
    few = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    for name, colours in (("grey", [9, 9, 9, 80, 80, 80, 255, 255, 255]), ("colour", [9, 9, 9, 250, 10, 0, 7, 8, 9])):
        image = Image.fromarray(few).convert("P")
        image.putdata(few.ravel())
        image.putpalette(colours)
        image.save(tmp_path / f"{name}.{suffix}")
        right = np.array(colours).reshape(3, 3)[few]
        assert np.array_equal(read(tmp_path / f"{name}.{suffix}"), right[..., 0] if name == "grey" else right)


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    few = np.array([[0, 1, 2]], dtype=np.uint8)
    image = Image.fromarray(few).convert("P")
    image.putdata(few.ravel())
    image.putpalette([255, 0, 255, 80, 80, 80, 200, 200, 200])
    image.save(tmp_path / "a.png", transparency=bytes([0, 255, 51]))
    image.save(tmp_path / "a.gif", transparency=0)
    alpha_beside = image.convert("PA")
    alpha_beside.putalpha(Image.fromarray(np.array([[0, 255, 51]], dtype=np.uint8)))
    alpha_beside.save(tmp_path / "a.tif")
    assert read(tmp_path / "a.png", 0.0).tolist() == [[0, 80, 40]]  # grey: the one colour is hidden
    assert read(tmp_path / "a.tif", 0.0).tolist() == [[0, 80, 40]]
    assert read(tmp_path / "a.gif", 0.0).tolist() == [[0, 80, 200]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "big.tif", "a.pgm", "a.jp2"])
def test_16_bits_keep_their_precision(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(DEEP)
    if name == "big.tif":
        image = Image.frombytes("I;16B", (8, 6), DEEP.astype(">u2").tobytes())
    image.save(tmp_path / name, **({"irreversible": False} if name == "a.jp2" else {}))
    np.testing.assert_allclose(read(tmp_path / name), DEEP / 65535, rtol=0, atol=1e-7)


def test_white_of_tiff_is_that_of_its_bits_and_may_be_zero(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    np.testing.assert_allclose(read(tmp_path / "inverted.tif"), 1 - DEEP / 65535, rtol=0, atol=1e-7)
    levels = [0, 4095, 2048, 1]
    packed = int("".join(f"{level:03x}" for level in levels), 16).to_bytes(6, "big")
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    (tmp_path / "twelve.tif").write_bytes(file)
    np.testing.assert_allclose(read(tmp_path / "twelve.tif"), [np.array(levels) / 4095], rtol=0, atol=1e-7)


def test_16_bit_colours_have_their_upper_8_bits_and_16_bit_grey_with_alpha_stays_grey(tmp_path: Path) -> None:
    colours = RNG.integers(0, 65536, (6, 8, 3), dtype=np.uint16)
    (tmp_path / "rgb.png").write_bytes(png(16, 2, colours))
    assert np.array_equal(read(tmp_path / "rgb.png"), colours >> 8)
    alpha = np.full_like(DEEP, 65535)
    (tmp_path / "la.png").write_bytes(png(16, 4, np.dstack([DEEP, alpha])))
    assert np.array_equal(read(tmp_path / "la.png"), DEEP >> 8)


@pytest.mark.parametrize("suffix", ["tif", "pfm"])
def test_floats_are_kept_and_must_lie_in_the_unit_range(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(FLOATS).save(path)
    assert np.array_equal(read(path), FLOATS)
    for wrong in (-0.5, 255.0, np.nan):
        pixels = FLOATS.copy()
        pixels[0, 0] = wrong
        Image.fromarray(pixels).save(path)
        with pytest.raises(ConfigurationError, match=rf"{path} has Pillow's mode 'F' with pixels .* to .*\[0, 1\]"):
            read(path)


@pytest.mark.parametrize("dtype", [np.int32, np.int16])
def test_integers_without_a_known_white_are_refused(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "a.tif"
    if dtype is np.int16:
        Image.fromarray(DEEP).save(path, tiffinfo={339: 2})  # signed
    else:
        Image.fromarray(DEEP.astype(np.int32)).save(path)
    for look in (read_header, read_image):
        with pytest.raises(
            ConfigurationError, match=rf"{path} has Pillow's mode 'I' \(TIFF\), whose white is not known"
        ):
            look(str(path), 1.0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.kron(RNG.integers(0, 256, (3, 4, 1), dtype=np.uint8), np.ones((16, 16, 3), dtype=np.uint8))
    flipped = [upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1]]
    stored = [*flipped, *(one.swapaxes(0, 1) for one in flipped)][orientation - 1]  # in the order of the standard
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"a.{suffix}"
    settings: dict[str, Any] = {"quality": 100} if suffix == "jpg" else {"lossless": True}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **settings)
    shown = read(path)
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).max() <= (4 if suffix == "jpg" else 0)


@pytest.mark.parametrize(("name", "written"), [("a.png", DEEP), ("a.tif", DEEP), ("b.tif", FLOATS), ("c.tif", GREY)])
def test_images_of_one_channel_are_upright(tmp_path: Path, name: str, written: NDArray[Any]) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.ascontiguousarray(written[:, ::-1].T)).save(tmp_path / name, exif=exif)
    right = written / 65535 if written is DEEP else written
    np.testing.assert_allclose(read(tmp_path / name), right, rtol=0, atol=1e-7)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_frame_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), level, dtype=np.uint8)) for level in (40, 200)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / f"one.{suffix}")
    assert (read(tmp_path / f"a.{suffix}") == 40).all()
    found = [read_header(str(tmp_path / f"{name}.{suffix}"), 1.0).has_frames for name in ("a", "one")]
    assert found == [True, False]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "jp2"])
def test_truncated_files_are_refused_with_their_name_in_one_line(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"a.{suffix}")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    for kept in (0, 1, 10, 50, len(whole) // 2):
        path = tmp_path / f"cut-{kept}.{suffix}"
        path.write_bytes(whole[:kept])
        with pytest.raises(ConfigurationError, match=rf"^{path} is not a readable image: .+$"):
            read_image(str(path), 1.0)


def test_damaged_exif_is_passed_over(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg", quality=100, exif=b"Exif\0\0no such thing")
    assert read(tmp_path / "a.jpg").shape == (6, 8)


def test_drawings_that_other_programs_would_draw_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ConfigurationError, match=rf"^{path} is not a readable image: EPS holds drawings, not pixels$"):
        read_header(str(path), 1.0)
