"""Image files as grey or RGB pixels: each mode of Pillow by its meaning, or refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lit_bottleneck.checks import ConfigurationError

PixelMode = Literal["L", "RGB", "F"]  # grey in 8 bits, colour in 8 bits, grey in floats from 0 to 1

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_PALETTE = ("P", "PA")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_SCALED_TO_16_BITS = ("PNG", "PPM")  # formats whose mode I has 65535 as white
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_WHITE_IS_ZERO = 0
_DRAWINGS = ("EPS", "WMF")  # Pillow has other programs draw them, such as Ghostscript


class Header(NamedTuple):
    """The mode in which ``read_image`` returns a file, and whether the file has further frames."""

    mode: PixelMode
    has_frames: bool


def read_header(path: str, background: float) -> Header:
    """Return the header of an image file; only images with a palette are decoded for it.

    Raises:
        ConfigurationError: if the file is not an image, or of a mode without a known black and white.
    """
    with _opened(path) as image:
        mode, has_frames = _mode_by_header(image, path), getattr(image, "is_animated", False)
    return Header(mode or cast(PixelMode, read_image(path, background).mode), has_frames)


def read_image(path: str, background: float) -> Image.Image:
    """Return the image in a file as a viewer shows it: its first frame, upright, without transparency.

    Modes 1, L, LA and La become L, and colours (RGB, CMYK, YCbCr, LAB, HSV, ...) RGB; a palette becomes L if all pixels
    are grey, else RGB. Grey levels of 16 bits become floats in [0, 1] by the full range of the format (of a 12-bit TIFF
    4095). Floats are kept; they must lie in [0, 1]. Mode I is refused, except from PNG and PGM, where white is 65535:
    32-bit integers do not say which number is white. Pillow reads 16-bit colours by their upper 8 bits. Colour profiles
    are ignored.

    Args:
        path: the file.
        background: grey level, in [0, 1], on which transparent pixels are composed.

    Returns:
        An image of mode L, RGB or F, fully decoded.

    Raises:
        ConfigurationError: if the file is not a readable image, its mode is refused, or floats are out of range.
    """
    with _opened(path) as image:
        mode = _mode_by_header(image, path)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if mode == "F":
            return _grey_floats(image, path, background)
        shown = _composed(image, round(255 * background))
        mode = mode or ("L" if _is_grey(shown) else "RGB")
        return shown if shown.mode == mode else shown.convert(mode)


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    try:
        # Given a path, Pillow maps plain TIFFs into memory, and garbles those that are stored on their side.
        with open(path, "rb") as file, Image.open(file) as image:
            if image.format in _DRAWINGS:
                raise ConfigurationError(f"{path} is not a readable image: {image.format} holds drawings, not pixels")
            yield image
    except (ConfigurationError, MemoryError):
        raise
    except Exception as error:  # for a damaged file Pillow's readers raise almost anything
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "unknown format" if unknown else (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigurationError(f"{path} is not a readable image: {reason}") from error


def _mode_by_header(image: Image.Image, path: str) -> PixelMode | None:
    """Return the mode to convert an opened image to; None if its pixels decide."""
    mode = image.mode
    if mode == "F" or mode in _SIXTEEN_BITS or (mode == "I" and image.format in _SCALED_TO_16_BITS):
        return "F"
    tiles = getattr(image, "tile", None)
    if mode in _GREY or (tiles and tiles[0][3] == "LA;16B"):  # Pillow opens this as RGBA
        return "L"
    if mode in _COLOUR:
        return "RGB"
    if mode in _PALETTE:
        return None
    known = "images of 8 or 16 bits, and floats in [0, 1], are read"
    raise ConfigurationError(f"{path} has Pillow's mode {mode!r} ({image.format}), whose white is not known; {known}")


def _composed(image: Image.Image, level: int) -> Image.Image:
    """Return an image of 8 bits in front of a grey level from 0 to 255."""
    if not image.has_transparency_data:
        return image
    front = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    canvas = Image.new("RGB", image.size, (level, level, level))
    canvas.paste(front, mask=front.getchannel("A"))
    return canvas


def _is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image.convert("RGB"))
    return bool((pixels == pixels[..., :1]).all())


def _grey_floats(image: Image.Image, path: str, background: float) -> Image.Image:
    """Return an image of more than 8 bits with black as 0 and white as 1."""
    levels, tags = np.asarray(image), getattr(image, "tag_v2", {})
    values = levels.astype(np.float32)
    if image.mode != "F":
        values /= 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= 1:  # also for NaN
        wanted = "floats must lie in [0, 1], from black to white"
        raise ConfigurationError(f"{path} has Pillow's mode {image.mode!r} with pixels {low:g} to {high:g}; {wanted}")
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits only
        values = 1 - values
    if "transparency" in image.info:
        values[levels == image.info["transparency"]] = background
    return Image.fromarray(values)
