"""Every kind of image file becomes a colour image of one size, and every broken one says why it does not."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets.folder import pil_loader
from torchvision.transforms.v2.functional import center_crop, resize

from nas_lightning.datamodules.image_files import UnreadableImage, read_frame, read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def expected(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_formats_without_loss_are_read_exactly(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(COLOURS)
    np.testing.assert_array_equal(read_image(saved(image, kind, **options), 16), expected(image))


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP"])
def test_formats_with_loss_are_read_as_torchvision_reads_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(saved(Image.fromarray(COLOURS), kind))
    np.testing.assert_array_equal(read_image(path, 16), expected(pil_loader(path)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_colours_become_three_channels(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    np.testing.assert_array_equal(read_image(saved(image, kind), 16), expected(image))


def test_transparency_is_dropped_and_palettes_with_it_too(recwarn: pytest.WarningsRecorder) -> None:
    image = Image.fromarray(COLOURS).convert("P")
    data = saved(image, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(read_image(data, 16), expected(image))
    clear = Image.fromarray(np.dstack([COLOURS, np.zeros((16, 16), np.uint8)]))
    np.testing.assert_array_equal(read_image(saved(clear, "PNG"), 16), COLOURS.transpose(2, 0, 1))
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_values_of_16_bits_keep_their_upper_8(kind: str) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, (16, 16), dtype=np.uint16)
    grey = (values >> 8).astype(np.uint8)
    image = Image.fromarray(values)
    np.testing.assert_array_equal(read_image(saved(image, kind), 16), np.stack([grey] * 3))


def test_values_of_32_bits_are_refused() -> None:
    values = np.ones((16, 16), np.float32)
    with pytest.raises(UnreadableImage, match="32 bits"):
        read_image(saved(Image.fromarray(values), "TIFF"), 16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_image_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1]}
    across = COLOURS.transpose(1, 0, 2)
    turned |= {5: across, 6: across[:, ::-1], 7: across[::-1, ::-1], 8: across[::-1]}
    data = saved(Image.fromarray(COLOURS), "PNG", exif=exif)
    np.testing.assert_array_equal(read_image(data, 16), turned[orientation].transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    image, animated = read_frame(data, 16)
    assert animated
    np.testing.assert_array_equal(image, expected(frames[0]))
    assert not read_frame(saved(frames[0], kind), 16)[1]


@pytest.mark.parametrize("shape", [(64, 48), (40, 200), (1, 1), (3000, 2000)])
def test_other_sizes_are_resized_and_cropped_like_torchvisions(shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    smooth = np.stack([rows * 200 / shape[0], columns * 200 / shape[1], rows * 0.0 + 90], axis=2)
    pixels = smooth.astype(np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    reference = center_crop(resize(image, [16], antialias=True), [16, 16]).numpy()
    for kind, tolerance in (("PNG", 12), ("JPEG", 14)):
        ours = read_image(saved(Image.fromarray(pixels), kind), 16)
        assert np.abs(ours.astype(int) - reference.astype(int)).max() <= tolerance


def test_a_missing_and_an_empty_file_and_another_kind_say_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        read_image(tmp_path / "missing.png", 8)
    with pytest.raises(UnreadableImage, match=r"^empty$"):
        read_image(b"", 8)
    with pytest.raises(UnreadableImage, match=r"^no image$"):
        read_image(b"a text, not an image", 8)


def test_what_has_no_end_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(100 << 30)
    for path, cause in (
        (tmp_path / "pipe.png", "a folder, pipe or device"),
        (Path("/dev/zero"), "a folder, pipe or device"),
        (tmp_path, "a folder, pipe or device"),
        (tmp_path / "large.png", r"too large for an image \(107.4 GB\)"),
        (Path("a\0b"), "null"),
    ):
        with pytest.raises(UnreadableImage, match=cause):
            read_image(path, 8)
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n"
    with pytest.raises(UnreadableImage, match=r"^no image$"):
        read_image(program, 8)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore:Image size")
def test_broken_files_are_refused_or_read_and_nothing_else() -> None:
    """200 files with bytes cut off or changed: an image of the size, or an error of one line."""
    chance = random.Random(0)
    image = Image.fromarray(COLOURS)
    kinds = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]
    files = [saved(image, kind) for kind in kinds]
    causes: list[str] = []
    for number in range(200):
        data = bytearray(files[number % len(files)])
        how = number % 3
        if how == 0:
            data = data[: chance.randrange(len(data))]
        else:
            for _ in range(chance.randint(1, 12)):
                place = chance.randrange(min(len(data), 80 if how == 1 else len(data)))
                data[place] = chance.randrange(256)
        try:
            assert read_image(bytes(data), 8).shape == (3, 8, 8)
        except UnreadableImage as error:
            causes.append(str(error))
    assert 60 < len(causes) < 200
    assert all(cause and "\n" not in cause for cause in causes)
