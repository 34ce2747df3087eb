"""Image files of any kind: turned upright, composited where they are transparent, and refused in words."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.readers.data_files import png, read, refusal, rows, write_npz

ORIENTATIONS = range(1, 9)
BRIGHT_LEFT = np.repeat(np.repeat(np.array([[230, 20]], np.uint8), 24, 0), 8, 1)  # (24, 16): as a camera stores it
UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores when the displayed image and the orientation are these."""
    return {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def save(file: Path, image: Image.Image, **options) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    return file


def only_image(root: Path, **settings) -> np.ndarray:
    """The pixels of a data set of one image, (H, W) or (H, W, C)."""
    return rows(read(root, **settings))[0].squeeze()


# --- Orientation ------------------------------------------------------------------------------------------------------


def test_a_photo_taken_upright_is_read_upright(tmp_path: Path) -> None:
    save(tmp_path / "ant" / "0.jpg", Image.fromarray(BRIGHT_LEFT), exif=exif(6))
    photo = only_image(tmp_path)
    assert (photo.shape, int(photo[:8].min()) > 200, int(photo[8:].max()) < 50) == ((16, 24), True, True)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_displayed_alike(tmp_path: Path, suffix: str, orientation: int) -> None:
    image = Image.fromarray(np.ascontiguousarray(stored(UPRIGHT, orientation)))
    options = {"lossless": True} if suffix == "webp" else {}
    if suffix == "webp":
        image = image.convert("RGB")
    save(tmp_path / "ant" / f"0.{suffix}", image, exif=exif(orientation), **options)
    assert (only_image(tmp_path).reshape(2, 3, -1)[..., 0] == UPRIGHT).all()


def test_sizes_are_compared_as_displayed(tmp_path: Path) -> None:
    save(tmp_path / "ant" / "0.png", Image.fromarray(UPRIGHT))
    save(tmp_path / "ant" / "1.png", Image.fromarray(stored(UPRIGHT, 6)), exif=exif(6))
    assert (rows(read(tmp_path))[..., 0] == UPRIGHT).all()
    save(tmp_path / "ant" / "2.png", Image.fromarray(UPRIGHT), exif=exif(6))
    assert "2.png (row 2) has 3×2 pixels, the first image 2×3" in refusal(tmp_path)


def test_images_in_parquet_are_turned_upright(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = save(tmp_path / "0.png", Image.fromarray(stored(UPRIGHT, 8)), exif=exif(8)).read_bytes()
    pq.write_table(pa.table({"image": [encoded], "label": [0]}), tmp_path / "toy.parquet")
    assert (only_image(tmp_path / "toy.parquet") == UPRIGHT).all()


BLOCKS = {
    "noise": b"Exif\x00\x00" + bytes(range(256)),
    "nothing": b"Exif\x00\x00",
    "an orientation of nine": exif(9),
    "ends early": exif(6)[:-9],
    "an offset beyond its end": b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_a_damaged_exif_block_fails_no_image(tmp_path: Path, suffix: str, block: bytes) -> None:
    save(tmp_path / "ant" / f"0.{suffix}", Image.fromarray(BRIGHT_LEFT), exif=block)
    assert only_image(tmp_path).shape[:2] in ((24, 16), (16, 24))


# --- Transparency -----------------------------------------------------------------------------------------------------

BAR = np.zeros((16, 16), np.uint8)
BAR[:, 6:10] = 255  # opaque there


def bar(mode: str) -> tuple[Image.Image, dict[str, object]]:
    """A black bar on nothing, and options to save it with."""
    layered = Image.fromarray(np.dstack([np.zeros((16, 16, 3), np.uint8), BAR]))
    if mode in ("RGBA", "LA"):
        return layered.convert(mode), {}
    colours = Image.fromarray(np.where(BAR == 255, 0, 9).astype(np.uint8))  # 9 marks what is transparent
    if mode == "P":
        colours = colours.copy()
        colours.putpalette([0] * 768)
    return colours.convert(mode), {"transparency": (9, 9, 9) if mode == "RGB" else 9}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_become_white_where_channels_is_set(tmp_path: Path, mode: str, channels: int) -> None:
    image, options = bar(mode)
    save(tmp_path / "ant" / "0.png", image, **options)
    picture = only_image(tmp_path, channels=channels).reshape(16, 16, channels)
    assert (picture == np.where(BAR == 255, 0, 255)[..., None]).all()


@pytest.mark.parametrize("suffix", ["webp", "tif", "gif"])
def test_transparent_pixels_of_any_container_are_composited(tmp_path: Path, suffix: str) -> None:
    image, options = bar("P") if suffix == "gif" else bar("RGBA")
    save(tmp_path / "ant" / f"0.{suffix}", image, **options)
    assert (only_image(tmp_path, channels=1) == np.where(BAR == 255, 0, 255)).all()


def test_the_background_is_an_option(tmp_path: Path) -> None:
    save(tmp_path / "ant" / "0.png", Image.new("RGBA", (4, 4), (255, 255, 255, 0)))
    assert only_image(tmp_path, background="black").tolist() == np.zeros((4, 4, 3)).tolist()
    assert only_image(tmp_path, background="white").min() == 255


def test_half_transparent_pixels_are_mixed(tmp_path: Path) -> None:
    save(tmp_path / "ant" / "0.png", Image.new("LA", (2, 2), (100, 51)))
    assert only_image(tmp_path, background="black").tolist() == [[20, 20], [20, 20]]
    assert only_image(tmp_path, background="white").tolist() == [[224, 224], [224, 224]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_are_refused_without_a_background(tmp_path: Path, mode: str) -> None:
    image, options = bar(mode)
    save(tmp_path / "ant" / "0.png", image, **options)
    message = refusal(tmp_path)
    assert "ant/0.png (row 0) has transparent pixels" in message
    assert "; set background to white or black, on which they are composited, or set channels" in message


def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path) -> None:
    save(tmp_path / "ant" / "0.png", Image.new("RGBA", (2, 2), (1, 2, 3, 255)))
    assert only_image(tmp_path).tolist() == [[[1, 2, 3]] * 2] * 2


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_grey_of_few_bits_is_found(tmp_path: Path, bits: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    brightest = (1 << bits) - 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0))
    line = bytes([0, brightest << (8 - bits)])  # the brightest grey, then black
    parts = (header, chunk(b"tRNS", struct.pack(">H", brightest)), chunk(b"IDAT", zlib.compress(line)))
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    assert only_image(tmp_path, background="black").tolist() == [0, 0]


def test_arrays_of_four_channels_are_composited(tmp_path: Path) -> None:
    images = np.dstack([np.zeros((16, 16, 3), np.uint8), BAR])[None]
    file = write_npz(tmp_path, images=images, labels=np.array([0]))
    for settings in ({"channels": 3}, {"background": "white"}):
        assert (only_image(file, **settings) == np.where(BAR == 255, 0, 255)[..., None]).all()
    assert only_image(file, channels=1, background="black").max() == 0


def test_transparent_images_in_parquet_are_composited(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = png(np.dstack([np.zeros((16, 16, 3), np.uint8), BAR]))
    pq.write_table(pa.table({"image": [encoded], "label": [0]}), tmp_path / "toy.parquet")
    assert (only_image(tmp_path / "toy.parquet", channels=1) == np.where(BAR == 255, 0, 255)).all()


def test_a_data_set_says_what_it_was_composited_on(tmp_path: Path) -> None:
    save(tmp_path / "ant" / "0.png", Image.new("L", (2, 2)))
    found = [read(tmp_path, **settings).background for settings in ({}, {"channels": 1}, {"background": "black"})]
    assert found == [None, "white", "black"]


# --- Formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["bmp", "gif", "tif", "tiff", "ppm", "pgm", "webp", "PNG"])
def test_every_format_keeps_its_pixels(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(UPRIGHT).convert("L" if suffix != "webp" else "RGB")
    save(tmp_path / "ant" / f"0.{suffix}", image, **({"lossless": True} if suffix == "webp" else {}))
    assert (only_image(tmp_path).reshape(2, 3, -1)[..., 0] == UPRIGHT).all()


def deep_tiff() -> bytes:
    """An RGB TIFF of 16 bits per channel, 1×1."""
    entries = ((256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140),
               (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6))  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    return start.ljust(134, b"\0") + struct.pack("<3H", 16, 16, 16) + struct.pack("<3H", 1, 2, 3)


DEEP = {
    "tif": deep_tiff(),
    "ppm": b"P6 1 1 65535\n" + bytes(6),
}


@pytest.mark.parametrize("suffix", DEEP)
def test_16_bit_colours_of_any_format_are_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / f"0.{suffix}").write_bytes(DEEP[suffix])
    assert f"ant/0.{suffix} has 16 bits per channel, and 8 are read; convert it" in refusal(tmp_path)


def test_an_image_is_read_from_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), level) for level in (10, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "0.gif").write_bytes(stream.getvalue())
    assert only_image(tmp_path, channels=1).tolist() == [[10, 10], [10, 10]]
