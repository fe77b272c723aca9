"""Image files of any kind as colour images of one size."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (
    *(".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
"""Files that are images, in a folder."""

LARGEST_FILE = 1 << 30
"""Most bytes of a file that is read as an image."""

_ANIMATED = frozenset({"GIF", "PNG", "WEBP"})
"""Formats whose frames are those of an animation; further pictures of other files are no part of it."""


class UnreadableImage(ValueError):
    """What cannot be read as an image; the message says why, without naming it."""


def read_image(source: Path | bytes, size: int) -> UInt8[NDArray[np.uint8], "3 {size} {size}"]:
    """Read an image file, or what it holds, as a colour image of ``size`` x ``size`` pixels.

    The image is turned upright by its EXIF orientation. Grey and palette images get three channels;
    transparency is dropped, as torchvision does; of 16 bits the upper 8 are kept; of an animation the first
    frame. What is not a square of that size is resized (bicubic) so that its shorter side fits, and cropped
    to its middle.

    Raises:
        UnreadableImage: If it is empty, damaged, truncated, no image, or too large, or has values
            of 32 bits, whose range is unknown.
    """
    return read_frame(source, size)[0]


def read_frame(source: Path | bytes, size: int) -> tuple[UInt8[NDArray[np.uint8], "3 {size} {size}"], bool]:
    """As :func:`read_image`, and whether the image is the first frame of several of an animation."""
    data = _content(source) if isinstance(source, Path) else source
    if not data:
        raise UnreadableImage("empty")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.format == "EPS":  # a program: Pillow would let Ghostscript run it
                raise UnidentifiedImageError
            animated = opened.format in _ANIMATED and getattr(opened, "n_frames", 1) > 1
            # A JPEG of many times the size is decoded at a half, a quarter or an eighth of it.
            opened.draft(None, (2 * size, 2 * size))
            return square_image(opened, size), animated
    except UnidentifiedImageError:
        raise UnreadableImage("no image") from None
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow meets damaged files with errors of every kind
        raise UnreadableImage(_reason(error)) from error


def square_image(opened: Image.Image, size: int) -> UInt8[NDArray[np.uint8], "3 {size} {size}"]:
    """As :func:`read_image`, of an image that Pillow has opened or made."""
    try:
        image = _in_colour(ImageOps.exif_transpose(opened), opened.format)
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
        return np.asarray(image).transpose(2, 0, 1)
    except UnreadableImage:
        raise
    except Exception as error:  # as above
        raise UnreadableImage(_reason(error)) from error


def files_below(
    folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[os.DirEntry[str]]:
    """Entries of a folder and of those below it with such a suffix, by name; no folders, no hidden names.

    Links to folders are followed; folders that contain themselves by a link end.
    """
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from files_below(Path(entry.path), suffixes, (*above, identity))
        elif entry.name.lower().endswith(suffixes):
            yield entry


def unreadable_error(message: str, files: Iterable[str]) -> ValueError:
    """A ValueError with what it says of each file as a note: the command line shows a line for each."""
    error = ValueError(message)
    for file in files:
        error.add_note(f"  {file}")
    return error


def _content(path: Path) -> bytes:
    """What a file holds; a pipe or a device might have no end."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage("a folder, pipe or device, no file")
        if status.st_size > LARGEST_FILE:
            raise UnreadableImage(f"too large for an image ({status.st_size / 1e9:.1f} GB)")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no path can have this name
        raise UnreadableImage(getattr(error, "strerror", None) or str(error)) from error


def _in_colour(image: Image.Image, file_format: str | None) -> Image.Image:
    """An image of a file of that format in RGB."""
    is_deep = image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM"))
    if is_deep:
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableImage("values of 32 bits, whose range is unknown; save it with 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# What Pillow would warn of is either read well or refused: damaged metadata, images above 89 megapixels.
warnings.filterwarnings("ignore", module=r"PIL\.")
