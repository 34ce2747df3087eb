"""Data sets for training: their rows and digests, and the errors for missing or damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from fount.readers.idx import read_idx
from handlers.recipes.data.load import MNIST_FILES, DataError, TrainingData, check_classes, load_data
from tests.handlers.mnist import DATA, needs_mnist

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = MNIST_FILES


def to_idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five training and three test pictures, as MNIST's files have them."""
    generator = np.random.default_rng(0)
    for count, images, labels in ((5, TRAIN_IMAGES, TRAIN_LABELS), (3, TEST_IMAGES, TEST_LABELS)):
        (tmp_path / images).write_bytes(to_idx(generator.integers(0, 256, (count, 28, 28))))
        (tmp_path / labels).write_bytes(to_idx(np.arange(count)))
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as refused:
        load_data("mnist", folder)
    return str(refused.value)


def pack(file: Path) -> None:
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()


# --- Digits -----------------------------------------------------------------------------------------------------------


def test_a_fifth_of_every_class_is_held_out(digits: TrainingData) -> None:
    assert (len(digits.train.labels), len(digits.test.labels)) == (1442, 355)
    assert torch.bincount(digits.test.labels).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]


def test_pixels_lie_between_0_and_1(digits: TrainingData) -> None:
    images = digits.train.images
    assert (tuple(images.shape[1:]), images.min().item(), images.max().item()) == ((1, 8, 8), 0.0, 1.0)


def test_the_data_have_the_digest_the_cards_name(digits: TrainingData) -> None:
    assert digits.digest == "sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_an_unknown_data_set_is_reported_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="data set 'cifar' is unknown; name one of digits, mnist"):
        load_data("cifar")


# --- MNIST ------------------------------------------------------------------------------------------------------------


def test_idx_files_become_rows_in_their_order(folder: Path) -> None:
    data = load_data("mnist", folder)
    assert data.train.images.shape == (5, 1, 28, 28)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2])
    first = np.frombuffer((folder / TRAIN_IMAGES).read_bytes()[16:17], np.uint8)[0]
    assert data.train.images[0, 0, 0, 0].item() == pytest.approx(first / 255)


def test_gzip_and_plain_files_have_one_digest(folder: Path) -> None:
    plain = load_data("mnist", folder).digest
    for name in MNIST_FILES:
        pack(folder / name)
    assert load_data("mnist", folder).digest == plain


def test_another_label_is_another_digest(folder: Path) -> None:
    before = load_data("mnist", folder).digest
    (folder / TEST_LABELS).write_bytes(to_idx(np.array([0, 1, 3])))
    assert load_data("mnist", folder).digest != before


@pytest.mark.parametrize("place", ["mnist", "raw", "MNIST/raw"])
def test_files_may_lie_in_a_subfolder(folder: Path, tmp_path_factory: pytest.TempPathFactory, place: str) -> None:
    data = tmp_path_factory.mktemp("data")
    (data / place).parent.mkdir(exist_ok=True)
    folder.rename(data / place)
    assert len(load_data("mnist", data).test.labels) == 3


def test_missing_files_are_named_with_their_source(folder: Path) -> None:
    (folder / TEST_LABELS).unlink()
    message = refusal(folder)
    places = f"{folder}, {folder}/mnist, {folder}/raw, {folder}/MNIST/raw"
    assert message.startswith(f"MNIST lacks {TEST_LABELS} (looked in {places}); get the four files ")
    assert "any mirror of MNIST" in message
    assert message.endswith("--data DIR or FOUNT_DATA")


def test_missing_classes_are_named(folder: Path) -> None:
    (folder / TRAIN_IMAGES).write_bytes(to_idx(np.zeros((19, 28, 28))))
    (folder / TRAIN_LABELS).write_bytes(to_idx(np.arange(19) % 10))
    with pytest.raises(DataError, match="training rows of mnist have fewer than 2 pictures of 9; name the folder"):
        check_classes(load_data("mnist", folder))


@needs_mnist
def test_mnist_has_its_known_digest() -> None:
    data = load_data("mnist", DATA)
    assert torch.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.digest == "sha256:aba886cf767d66cd31478edf8db0ef33ce867826e135101d98e8a63708ccfd72"


# --- Damage -----------------------------------------------------------------------------------------------------------


def test_a_file_of_another_kind_is_reported_with_its_first_bytes(folder: Path) -> None:
    (folder / TRAIN_IMAGES).write_bytes((folder / TRAIN_LABELS).read_bytes())
    assert "begins with 00 00 08 01; an IDX file of bytes with 3 dimensions begins with 00 00 08 03" in refusal(folder)


def test_an_empty_file_is_no_idx_file(folder: Path) -> None:
    (folder / TRAIN_LABELS).write_bytes(b"")
    assert "is empty (0 bytes)" in refusal(folder)


def test_a_file_truncated_within_its_header_is_reported(folder: Path) -> None:
    (folder / TRAIN_IMAGES).write_bytes(to_idx(np.zeros((1, 28, 28)))[:10])
    assert "ends within its header; download it again" in refusal(folder)


def test_a_truncated_file_is_reported_with_both_counts(folder: Path) -> None:
    (folder / TEST_IMAGES).write_bytes((folder / TEST_IMAGES).read_bytes()[:-1])
    assert "ends early: its header announces 3 × 28 × 28 bytes, 2351 follow; download it again" in refusal(folder)


def test_bytes_after_the_last_picture_are_reported(folder: Path) -> None:
    (folder / TEST_IMAGES).write_bytes((folder / TEST_IMAGES).read_bytes() + b"\0")
    assert "continues after its end: its header announces 3 × 28 × 28 bytes, more follow" in refusal(folder)


@pytest.mark.parametrize("damage", ["cut", "checksum", "body"])
def test_a_damaged_gzip_file_is_reported(folder: Path, damage: str) -> None:
    pack(folder / TEST_IMAGES)
    file = folder / f"{TEST_IMAGES}.gz"
    packed = bytearray(file.read_bytes())
    if damage == "cut":
        packed = packed[:-20]
    else:
        packed[-6 if damage == "checksum" else 30] ^= 0xFF
    file.write_bytes(packed)
    assert f"{file} is a damaged gzip file" in refusal(folder)


def test_a_header_that_announces_too_many_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "images"
    file.write_bytes(bytes([0, 0, 8, 3]) + np.array([2**31, 2**10, 2**10], ">u4").tobytes())
    with pytest.raises(DataError, match="announces 2147483648 × 1024 × 1024 bytes, more than the 268435456"):
        read_idx(file, 3)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "labels.gz"
    file.write_bytes(gzip.compress(to_idx(np.zeros(1)) + bytes(2**26)))
    with pytest.raises(DataError, match="continues after its end"):
        read_idx(file, 1)


def test_different_counts_of_pictures_and_labels_are_reported(folder: Path) -> None:
    (folder / TEST_LABELS).write_bytes(to_idx(np.arange(4)))
    assert f"has 3 pictures and {folder / TEST_LABELS} 4 labels; both must be equal" in refusal(folder)


def test_a_label_that_is_no_digit_is_reported_with_its_row(folder: Path) -> None:
    (folder / TEST_LABELS).write_bytes(to_idx(np.array([0, 12, 2])))
    assert "has label 12 in row 1, digits are 0 to 9" in refusal(folder)


def test_pictures_of_another_size_are_reported(folder: Path) -> None:
    (folder / TEST_IMAGES).write_bytes(to_idx(np.zeros((3, 32, 32))))
    assert "has pictures of 32×32 pixels, MNIST's have 28×28" in refusal(folder)


def test_an_unreadable_file_is_reported(folder: Path) -> None:
    (folder / TEST_IMAGES).unlink()
    (folder / TEST_IMAGES).symlink_to("/proc/self/mem")
    assert "cannot be read" in refusal(folder)
