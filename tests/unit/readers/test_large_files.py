"""Data sets that are large or expand: what is refused before it is decompressed, memory, and how reading is ended."""

from __future__ import annotations

import gzip
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from fount.cancellation import WorkCancelled, cancelled_by
from fount.readers import Limits
from fount.readers.image_decoder import ImageDecoder
from tests.unit.readers.data_files import LABELS, PIXELS, png, read, refusal, to_idx, write_folder, write_idx, write_npz

MB = 1_000_000
IMAGES, IMAGES_LABELS = np.zeros((40, 1000, 1000), np.uint8), np.zeros(40, np.uint8)
"""40 MB of black pixels, of which little remains when they are compressed."""


def write_compressed_idx(folder: Path, *, test: bool = True) -> Path:
    for prefix in ("train", "t10k") if test else ("train",):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(to_idx(IMAGES), 1))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(to_idx(IMAGES_LABELS), 1))
    return folder


def write_compressed_npz(folder: Path, *, test: bool = True) -> Path:
    arrays = {"x_train": IMAGES, "y_train": IMAGES_LABELS}
    np.savez_compressed(folder / "toy.npz", **arrays, **({"x_test": IMAGES, "y_test": IMAGES_LABELS} if test else {}))
    return folder / "toy.npz"


def write_parquet(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; pip install 'fount[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"image": [png(image) for image in PIXELS], "label": LABELS}), folder / "toy.parquet")
    return folder / "toy.parquet"


COMPRESSED = pytest.mark.parametrize("write", [write_compressed_idx, write_compressed_npz], ids=["idx", "npz"])


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Measure the most bytes that are allocated at once within the block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- Memory -----------------------------------------------------------------------------------------------------------


@COMPRESSED
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": Limits(max_bytes=60 * MB)}, "80000000 bytes, and at most 60000000 are read"),
        ({"limits": Limits(max_bytes=60 * MB), "size": (2, 2)}, "80000000 bytes, and at most 60000000 are read"),
        ({"held_out": 0.1}, "already has a test split; remove held_out"),
        ({"classes": ("a/b",)}, "the class name 'a/b' is a path"),
    ],
    ids=["too large together", "too large before they are resized", "held out twice", "a wrong class name"],
)
def test_what_pixels_do_not_decide_is_refused_before_they_are_decompressed(
    tmp_path: Path, write, settings, message: str
) -> None:
    path = write(tmp_path)
    with peak_memory() as peak:
        assert message in refusal(path, **settings)
        assert peak() < 10 * MB


@COMPRESSED
def test_compressed_images_are_in_memory_once(tmp_path: Path, write) -> None:
    path = write(tmp_path, test=False)
    with peak_memory() as peak:
        assert read(path).digest.startswith("sha256:")
        assert 40 * MB <= peak() < 80 * MB  # with a block of 16 MiB to hash


def test_a_gzip_file_that_cannot_hold_what_it_announces_is_not_decompressed(tmp_path: Path) -> None:
    write_idx(tmp_path, test=False)
    file = tmp_path / "train-images-idx3-ubyte"
    header = bytes([0, 0, 8, 3]) + np.array([6, 10_000, 10_000], ">u4").tobytes()
    file.with_suffix(".gz").write_bytes(gzip.compress(header + bytes(1000)))
    file.unlink()
    with peak_memory() as peak:
        assert "ends early: its header announces 6 × 10000 × 10000 bytes, too many for" in refusal(tmp_path)
        assert peak() < 10 * MB


def test_a_member_is_decompressed_in_pieces_of_a_mebibyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, read_piece = [], zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: (sizes.append(n), read_piece(self, n))[1])
    _ = read(write_compressed_npz(tmp_path, test=False)).digest
    assert (min(sizes) > 0, max(sizes)) == (True, 1 << 20)  # -1 is everything, which holds the interpreter for seconds


# --- Ending -----------------------------------------------------------------------------------------------------------

SMALL = pytest.mark.parametrize(
    "write",
    [write_idx, lambda folder: write_npz(folder, images=PIXELS, labels=LABELS), write_folder, write_parquet],
    ids=["idx", "npz", "folder", "parquet"],
)


def cancelled() -> Event:
    event = Event()
    event.set()
    return event


@SMALL
def test_nothing_is_read_when_nobody_waits(tmp_path: Path, write) -> None:
    path = write(tmp_path)
    with cancelled_by(cancelled()), pytest.raises(WorkCancelled):
        read(path)


@SMALL
def test_a_digest_is_not_computed_when_nobody_waits(tmp_path: Path, write) -> None:
    dataset = read(write(tmp_path))
    with cancelled_by(cancelled()), pytest.raises(WorkCancelled):
        _ = dataset.digest


@pytest.mark.parametrize("write", [write_folder, write_parquet], ids=["folder", "parquet"])
def test_reading_ends_with_the_image_that_is_being_decoded(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, event, decoded, decode = read(write(tmp_path)), Event(), [], ImageDecoder.decode

    def decode_and_cancel(self, image, where):
        decoded.append(where)
        if len(decoded) == 3:
            event.set()
        return decode(self, image, where)

    monkeypatch.setattr(ImageDecoder, "decode", decode_and_cancel)
    with cancelled_by(event), pytest.raises(WorkCancelled):
        _ = dataset.digest
    assert len(decoded) == 3


@COMPRESSED
def test_decompressing_ends_with_the_piece_that_is_being_read(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, event, pieces = read(write(tmp_path, test=False)), Event(), []
    stream = zipfile.ZipExtFile if write is write_compressed_npz else gzip.GzipFile
    read_piece = stream.read

    def read_and_cancel(self, size=-1):
        pieces.append(size)
        if pieces.count(1 << 20) == 2:
            event.set()
        return read_piece(self, size)

    monkeypatch.setattr(stream, "read", read_and_cancel)
    with cancelled_by(event), pytest.raises(WorkCancelled):
        _ = dataset.digest
    assert pieces.count(1 << 20) == 2


def test_without_an_event_work_is_never_ended(tmp_path: Path) -> None:
    with cancelled_by(Event()):
        assert len(read(write_folder(tmp_path)).splits["train"]) == 6
