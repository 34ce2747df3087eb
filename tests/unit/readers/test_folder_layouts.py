"""Folders as people have them: splits, MNIST and data hubs in their usual spellings, junk, groups, and names."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.readers.data_files import LABELS, PIXELS, png, read, refusal, rows, write_folder, write_idx

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
"""One name in NFC, as keyboards type it, and in NFD, as macOS wrote it."""


def draw(file: Path, row: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(PIXELS[row]))
    return file


# --- Splits -----------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "training, testing": ({"training": "train", "testing": "test"}),
    "capitals": ({"Train": "train", "Test": "test"}),
    "valid": ({"train": "train", "valid": "validation", "test": "test"}),
    "val": ({"train": "train", "val": "val"}),
    "VALIDATION, Dev": ({"TRAIN": "train", "VALIDATION": "validation"}),
    "dev": ({"train": "train", "dev": "validation"}),
}


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_splits_are_recognised_in_their_usual_spellings(tmp_path: Path, names: dict[str, str]) -> None:
    for name in names:
        write_folder(tmp_path / name)
    toy = read(tmp_path)
    assert set(toy.splits) == set(names.values())
    assert (next(iter(toy.splits)), toy.classes) == ("train", ("ant", "bee", "cat"))


@pytest.mark.parametrize(("one", "other"), [("Train", "training"), ("val", "valid"), ("test", "testing")])
def test_two_spellings_of_a_split_are_both_named(tmp_path: Path, one: str, other: str) -> None:
    for name in {"train", one, other} - ({"train"} if one == "Train" else set()):
        write_folder(tmp_path / name)
    message = refusal(tmp_path)
    assert f"{tmp_path}/{one} and {tmp_path}/{other} are both the split" in message


def test_a_test_split_without_a_training_split_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "testing")
    message = refusal(tmp_path)
    assert f"{tmp_path}/testing is a split, and {tmp_path} has no folder train" in message


def test_splits_without_classes_are_refused_with_the_layouts(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "0.png")
    draw(tmp_path / "test" / "0.png")
    message = refusal(tmp_path)
    assert "test holds images without classes; a data set is an NPZ or Parquet file, a folder of NPZ" in message


def test_images_without_classes_are_refused_with_the_layouts(tmp_path: Path) -> None:
    draw(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_text("0.png,ant")
    assert f"{tmp_path} holds images without classes, such as 0.png; a data set is" in refusal(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "plane", "train"):
        draw(tmp_path / name / "0.png")
    toy = read(tmp_path)
    assert (toy.classes, list(toy.splits), len(toy.splits["train"])) == (("car", "plane", "train"), ["train"], 3)


def test_a_class_called_train_may_be_in_a_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        draw(tmp_path / split / "car" / "0.png")
        draw(tmp_path / split / "train" / "0.png")
    assert read(tmp_path).classes == ("car", "train")


@pytest.mark.parametrize("nested", ["ant/left/0.png", "bee/train/0.png"])
def test_a_folder_within_a_class_is_refused_with_the_layouts(tmp_path: Path, nested: str) -> None:
    draw(write_folder(tmp_path) / nested)
    message = refusal(tmp_path)
    assert "is a folder within a class" in message
    assert "images as CLASS/IMAGE, or as train/CLASS/IMAGE and test/CLASS/IMAGE" in message
    assert "move" not in message


def test_a_folder_around_the_classes_is_named_as_the_path(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets-1.0" / "train")
    assert refusal(tmp_path).endswith(f"give {tmp_path}/pets-1.0 as the path")


def test_an_array_file_in_a_folder_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.npz", images=PIXELS, labels=LABELS)
    assert read(tmp_path).format == "npz"
    assert refusal(tmp_path, format="folder").endswith(f"give {tmp_path}/toy.npz as the path")


def test_array_files_are_not_joined_unless_their_names_say_so(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        np.savez(tmp_path / f"{name}.npz", images=PIXELS, labels=LABELS)
    assert refusal(tmp_path).endswith(f"name them train-….npz and test-….npz, or give {tmp_path}/cats.npz as the path")
    for name in ("cats", "dogs"):
        (tmp_path / f"{name}.npz").rename(tmp_path / f"train-{name}.npz")
    assert len(read(tmp_path).splits["train"]) == 12


def test_a_folder_of_anything_else_is_refused_with_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"x")
    assert f"{tmp_path} holds data_batch_1, and has no class folder; a data set is an NPZ or" in refusal(tmp_path)


# --- Junk -------------------------------------------------------------------------------------------------------------

JUNK = (
    ".DS_Store", "._ant", "__MACOSX/ant/._0.png", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/0.png", "README.md",
    ".gitattributes", "ant/._0.png", "ant/.ipynb_checkpoints/0-checkpoint.png", "ant/Thumbs.db", "bee/THUMBS.DB",
    "@eaDir/0.png",
)  # fmt: skip


@pytest.mark.parametrize("junk", JUNK)
def test_what_systems_put_next_to_images_is_ignored(tmp_path: Path, junk: str) -> None:
    write_folder(tmp_path)
    (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / junk).write_bytes(b"junk")
    assert (len(read(tmp_path).splits["train"]), read(tmp_path).classes) == (6, ("ant", "bee", "cat"))


# --- IDX --------------------------------------------------------------------------------------------------------------


def rename_idx(folder: Path) -> Path:
    """Give the files the names that some mirrors give them."""
    for file in list(folder.iterdir()):
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    return folder


def test_idx_files_are_found_with_a_dot_in_their_names(tmp_path: Path) -> None:
    toy = read(rename_idx(write_idx(tmp_path)))
    assert (toy.format, list(toy.splits)) == ("idx", ["train", "test"])


def test_packed_idx_files_are_found_with_a_dot_in_their_names(tmp_path: Path) -> None:
    for file in list(rename_idx(write_idx(tmp_path)).iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert (rows(read(tmp_path))[..., 0] == PIXELS[..., 0]).all()


@pytest.mark.parametrize("place", ["raw", "MNIST/raw", "archive"])
@pytest.mark.parametrize("format", ["auto", "idx"])
def test_idx_files_are_found_in_a_folder_below(tmp_path: Path, place: str, format: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    write_idx(tmp_path / place)
    (tmp_path / "__MACOSX").mkdir()
    write_idx(tmp_path / "__MACOSX")
    assert read(tmp_path, format=format).format == "idx"


def test_idx_files_of_several_data_sets_are_named(tmp_path: Path) -> None:
    for name in ("MNIST", "FashionMNIST"):
        (tmp_path / name).mkdir()
        write_idx(tmp_path / name)
    message = refusal(tmp_path)
    assert "holds IDX files of several data sets; give one of the folders" in message
    assert f"{tmp_path}/FashionMNIST, {tmp_path}/MNIST" in message


# --- Data hubs --------------------------------------------------------------------------------------------------------


def write_parquet(file: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(image), "path": None} for image in PIXELS]
    pq.write_table(pa.table({"image": images, "label": LABELS}), file)


@pytest.mark.parametrize("folder", ["data", "mnist", "."])
def test_a_checkout_of_a_data_hub_is_read(tmp_path: Path, folder: str) -> None:
    write_parquet(tmp_path / folder / "train-00000-of-00001.parquet")
    write_parquet(tmp_path / folder / "test-00000-of-00001.parquet")
    for name in ("README.md", ".gitattributes", "dataset_infos.json"):
        (tmp_path / name).write_text("---\nlicense: mit\n---\n")
    draw(tmp_path / "assets" / "banner.png")
    toy = read(tmp_path)
    assert (toy.format, {name: len(split) for name, split in toy.splits.items()}) == (
        "parquet",
        {"train": 6, "test": 6},
    )


def test_parquet_files_in_folders_of_splits_are_read(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_parquet(tmp_path / "default" / split / "0000.parquet")
    assert list(read(tmp_path).splits) == ["train", "validation"]


@pytest.mark.parametrize(("name", "split"), [("Test-0", "test"), ("val-0", "validation"), ("dev_set", "validation")])
def test_parquet_splits_are_recognised_in_their_usual_spellings(tmp_path: Path, name: str, split: str) -> None:
    write_parquet(tmp_path / "training.parquet")
    write_parquet(tmp_path / f"{name}.parquet")
    assert list(read(tmp_path).splits) == ["train", split]


def test_several_configurations_are_named_with_their_paths(tmp_path: Path) -> None:
    for name in ("cropped_digits", "full_numbers"):
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet")
    expected = f"give one of the folders {tmp_path}/cropped_digits, {tmp_path}/full_numbers"
    assert f"{tmp_path} holds Parquet files of several data sets; {expected}" in refusal(tmp_path)


# --- groups.csv -------------------------------------------------------------------------------------------------------

PATHS = [f"{('ant', 'bee', 'cat')[label]}/{row}.png" for row, label in enumerate(LABELS)]
GROUPS = ["old", "old", "old", "new", "new", "new"]


def csv_text(delimiter: str, header: str = "path{}group", paths: list[str] = PATHS) -> str:
    lines = [f"{path}{delimiter}{group}" for path, group in zip(paths, GROUPS, strict=True)]
    return "\r\n".join([header.format(delimiter), *lines, ""])


SPREADSHEETS = {
    "a byte order mark": csv_text(",").encode("utf-8-sig"),
    "semicolons": csv_text(";").encode("utf-8-sig"),
    "tabs": csv_text("\t").encode(),
    "names in capitals": csv_text(",", "Path{} Group ").encode(),
    "empty cells": (csv_text(";") + ";\r\n;;\r\n").encode(),
    "the separator of Excel": ("sep=;\r\n" + csv_text(";")).encode(),
    "quotes": csv_text(";", '"path"{}"group"').encode(),
    "paths of Windows": csv_text(";", paths=[path.replace("/", "\\") for path in PATHS]).encode(),
    "columns of one's own": "\n".join(
        ["group,note,path", *(f'{group},"a, b",{path}' for path, group in zip(PATHS, GROUPS, strict=True))]
    ).encode(),
}


@pytest.mark.parametrize("text", SPREADSHEETS.values(), ids=SPREADSHEETS.keys())
def test_groups_are_read_as_spreadsheets_write_them(tmp_path: Path, text: bytes) -> None:
    (write_folder(tmp_path) / "groups.csv").write_bytes(text)
    toy = read(tmp_path)
    assert (toy.groups, toy.splits["train"].groups.tolist()) == (("new", "old"), [1, 0, 1, 0, 1, 0])


OTHER_ENCODINGS = {
    "UTF-16": (csv_text("\t").encode("utf-16"), "groups.csv is UTF-16; save it as UTF-8"),
    "Latin-1": (
        csv_text(";").replace("old", "früh").encode("latin-1"),
        "groups.csv is not UTF-8; save it as",
    ),
    "no columns": (b"ant/0.png,old\n", "groups.csv begins with 'ant/0.png,old'; its first line must name the columns"),
    "an empty line 3": (b"sep=;\npath;group\nant/0.png;\n", "groups.csv, line 3 is 'ant/0.png,'"),
    "whole paths": (
        csv_text(",", paths=[f"/photos/{path}" for path in PATHS]).encode(),
        "ant/0.png; add one, with the path relative to the data set; its first line is for '/photos/ant/0.png'",
    ),
    "a column twice": (b"path,group,Group\n", "its first line must name the columns path and group, once each"),
}


@pytest.mark.parametrize(("text", "message"), OTHER_ENCODINGS.values(), ids=OTHER_ENCODINGS.keys())
def test_a_groups_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, text: bytes, message: str
) -> None:
    (write_folder(tmp_path) / "groups.csv").write_bytes(text)
    assert message in refusal(tmp_path)


def test_the_groups_file_may_have_another_name(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "sites.csv").write_text(csv_text(","))
    assert read(tmp_path, group="sites.csv").groups == ("new", "old")


# --- Unicode ----------------------------------------------------------------------------------------------------------


def test_folders_of_one_name_in_two_forms_are_one_class(tmp_path: Path) -> None:
    draw(tmp_path / COMPOSED / "0.png", 0)
    draw(tmp_path / DECOMPOSED / "1.png", 1)
    toy = read(tmp_path)
    assert (toy.classes, toy.splits["train"].labels.tolist()) == ((COMPOSED,), [0, 0])


def test_a_data_set_has_one_digest_in_either_form(tmp_path: Path) -> None:
    digests = [
        read(write_folder(tmp_path / str(k), ("cafe", "caff", name))).digest
        for k, name in enumerate((COMPOSED, DECOMPOSED))
    ]
    assert digests[0] == digests[1]


def test_configured_classes_match_folders_in_the_other_form(tmp_path: Path) -> None:
    draw(tmp_path / DECOMPOSED / "0.png")
    assert read(tmp_path, classes=(COMPOSED,)).classes == (COMPOSED,)


def test_paths_and_groups_match_in_either_form(tmp_path: Path) -> None:
    draw(tmp_path / DECOMPOSED / f"{COMPOSED}.png")
    draw(tmp_path / DECOMPOSED / "1.png")
    lines = f"path,group\n{COMPOSED}/{DECOMPOSED}.png,{COMPOSED}\n{COMPOSED}/1.png,{DECOMPOSED}\n"
    (tmp_path / "groups.csv").write_text(lines)
    assert read(tmp_path).groups == (COMPOSED,)


@pytest.mark.parametrize("what", ["labels", "groups"])
def test_names_in_arrays_are_composed(tmp_path: Path, what: str) -> None:
    names = np.array([COMPOSED, DECOMPOSED] * 3)
    np.savez(tmp_path / "toy.npz", **({"images": PIXELS, "labels": LABELS} | {what: names}))
    toy = read(tmp_path / "toy.npz")
    assert (toy.classes if what == "labels" else toy.groups) == (COMPOSED,)


def test_a_tiny_picture_of_every_suffix_is_in_its_class(tmp_path: Path) -> None:
    for suffix in ("png", "JPG", "bmp", "gif", "tiff", "ppm", "webp", "jpeg", "tif", "jpe", "jfif"):
        (tmp_path / "ant").mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "ant" / f"0.{suffix}")
    assert len(read(tmp_path, channels=3).splits["train"]) == 11
