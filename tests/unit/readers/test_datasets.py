"""Data sets of any format: digests, splits, groups, limits, class names."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fount.readers import DataError, DatasetSource, Limits, read_dataset
from handlers.recipes.data.load import load_data
from tests.handlers.mnist import DATA, needs_mnist
from tests.unit.readers.data_files import LABELS, PIXELS, read, refusal, rows, write_folder, write_idx, write_npz

# --- The built-in data set --------------------------------------------------------------------------------------------


def test_digits_have_the_digest_of_their_model_cards() -> None:
    digits = read_dataset(DatasetSource(name="digits"))
    assert digits.digest == "sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_digits_are_split_as_training_splits_them() -> None:
    digits = read_dataset(DatasetSource(name="digits"))
    trained = load_data("digits")
    assert (digits.splits["train"].labels == trained.train.labels.numpy()).all()
    assert np.abs(rows(digits, "test")[..., 0] / 255 - trained.test.images[:, 0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_digits_are_read_without_importing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert len(read_dataset(DatasetSource(name="digits")).splits["train"]) == 1442


def test_digits_without_scikit_learn_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fount.readers.digits.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        read_dataset(DatasetSource(name="digits"))


@needs_mnist
def test_mnist_has_the_digest_of_its_model_cards() -> None:
    folder = DATA / "mnist" if (DATA / "mnist").is_dir() else DATA
    assert read(folder).digest == "sha256:aba886cf767d66cd31478edf8db0ef33ce867826e135101d98e8a63708ccfd72"


# --- Digests ----------------------------------------------------------------------------------------------------------


def test_the_same_rows_have_one_digest_in_any_format(tmp_path: Path) -> None:
    order = np.argsort(LABELS, kind="stable")  # as a folder lists them
    file = write_npz(tmp_path, images=PIXELS[order], labels=LABELS[order])
    folder = write_folder(tmp_path / "folder")
    assert read(file, classes=("ant", "bee", "cat")).digest == read(folder).digest


@pytest.mark.parametrize("changed", ["pixel", "label", "class name", "group"])
def test_any_difference_changes_the_digest(tmp_path: Path, changed: str) -> None:
    arrays = {"images": PIXELS.copy(), "labels": LABELS.copy(), "groups": LABELS % 2}
    before = read(write_npz(tmp_path, **arrays)).digest
    if changed == "pixel":
        arrays["images"][5, 4, 3, 2] ^= 1
    elif changed == "label":
        arrays["labels"][5] = 0
    elif changed == "group":
        arrays["groups"] = 1 - arrays["groups"]
    names = ("a", "b", "c") if changed == "class name" else ()
    assert read(write_npz(tmp_path, **arrays), classes=names).digest != before


# --- Splits and groups ------------------------------------------------------------------------------------------------


def test_a_share_of_every_class_is_held_out(tmp_path: Path) -> None:
    labels = np.arange(100) % 3
    toy = read(write_npz(tmp_path, images=np.zeros((100, 2, 2), np.uint8), labels=labels), held_out=0.2)
    assert np.bincount(toy.splits["test"].labels).tolist() == [7, 7, 7]
    assert len(toy.splits["train"]) == 79


def test_the_held_out_rows_are_always_the_same(tmp_path: Path) -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None]
    toy = read(write_npz(tmp_path, images=images, labels=np.zeros(40, int)), held_out=0.1)
    assert rows(toy, "test").ravel().tolist() == [0, 3, 22, 37]


def test_no_row_is_in_both_splits(tmp_path: Path) -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None]
    toy = read(write_npz(tmp_path, images=images, labels=np.zeros(40, int)), held_out=0.3)
    assert sorted([*rows(toy).ravel(), *rows(toy, "test").ravel()]) == list(range(40))


def test_a_data_set_with_a_test_split_refuses_held_out(tmp_path: Path) -> None:
    assert "already has a test split; remove held_out" in refusal(write_idx(tmp_path), held_out=0.1)


def test_groups_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    toy = read(write_npz(tmp_path, images=PIXELS, labels=LABELS, groups=np.array([70, 9, 9, 70, 9, 9])))
    assert (toy.groups, toy.splits["train"].groups.tolist()) == (("9", "70"), [1, 0, 0, 1, 0, 0])


def test_rows_are_returned_in_the_requested_order(tmp_path: Path) -> None:
    train = read(write_npz(tmp_path, images=PIXELS, labels=LABELS)).splits["train"]
    assert (train.images(np.array([4, 0, 4])) == PIXELS[[4, 0, 4]]).all()


def test_a_row_outside_the_split_is_named(tmp_path: Path) -> None:
    train = read(write_npz(tmp_path, images=PIXELS, labels=LABELS)).splits["train"]
    with pytest.raises(DataError, match="row 6 of train does not exist; it has rows 0 to 5"):
        train.images(np.array([1, 6]))


# --- Limits and names -------------------------------------------------------------------------------------------------

LIMITS = {
    "bytes": (Limits(max_bytes=359), "announces 6 images of 5×4×3, 360 bytes, and at most 359 are read"),
    "pixels": (Limits(max_pixels=19), "and one may have 19 pixels"),
    "rows": (Limits(max_rows=5), "at most 5 rows are read"),
    "classes": (Limits(max_classes=2), "has 3 classes, and at most 2 are read"),
}


@pytest.mark.parametrize(("limits", "message"), LIMITS.values(), ids=LIMITS.keys())
def test_a_data_set_over_a_limit_is_refused(tmp_path: Path, limits: Limits, message: str) -> None:
    assert message in refusal(write_npz(tmp_path, images=PIXELS, labels=LABELS), limits=limits)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "is a path"), ("..", "is a path"), ("a\\b", "is a path"), ("", "is empty"), (" ", "is empty"),
        ("a\x1b[31m", "has control characters"), ("a\u202eb", "has control"), ("x" * 201, "has more than 200"),
    ],
    ids=ascii,
)  # fmt: skip
def test_an_invalid_class_name_is_refused(tmp_path: Path, name: str, why: str) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=np.array(["ok", "ok", "ok", "ok", "ok", name]))
    assert f"the class name {name[:80]!r} {why}" in refusal(file)


@pytest.mark.parametrize(
    ("name", "why"), [("", "is empty"), ("a\nb", "has control"), ("\ud800", "has control")], ids=ascii
)
def test_an_invalid_group_name_is_refused(tmp_path: Path, name: str, why: str) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=LABELS, groups=np.array(["ok", "a/b", "ok", "ok", "ok", name]))
    assert f"the group name {name!r} {why}" in refusal(file)


@pytest.mark.parametrize("what", ["labels", "groups"])
def test_numbers_in_one_split_and_names_in_another_are_refused(tmp_path: Path, what: str) -> None:
    columns = {"y_train": LABELS, "y_test": LABELS, "groups_train": LABELS, "groups_test": LABELS}
    columns["y_test" if what == "labels" else "groups_test"] = np.array(list("123123"))
    file = write_npz(tmp_path, x_train=PIXELS, x_test=PIXELS, **columns)
    assert f"{what} are numbers in one split and names in another; make them alike" in refusal(file)


def test_a_class_named_twice_is_refused(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=LABELS)
    assert "the class name 'a' occurs twice" in refusal(file, classes=("a", "b", "a"))


def test_a_label_beyond_the_classes_is_named_with_its_row(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=LABELS)
    assert f"{file}, labels, row 2 has label 2, outside 0 to 1" in refusal(file, classes=("a", "b"))


def test_a_negative_label_is_named_with_its_row(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[4] = -1
    assert "labels, row 4 has label -1" in refusal(write_npz(tmp_path, images=PIXELS, labels=labels))


def test_an_unknown_name_among_the_labels_is_named_with_its_row(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=np.array(["a", "b", "a", "dog", "a", "a"]))
    assert "labels, row 3 has label 'dog', which is not among the classes a, b" in refusal(file, classes=("a", "b"))


def test_an_absent_path_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"{tmp_path}/nowhere does not exist; give the file or folder of toy"


def test_an_unsupported_file_is_refused_with_the_supported_formats(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b")
    assert "has no supported format; a data set is an NPZ or Parquet file" in refusal(tmp_path / "x.csv")
