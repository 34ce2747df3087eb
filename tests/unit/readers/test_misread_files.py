"""Files that could be read as something else than was meant: they are refused with the remedy, or read as meant."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.unit.readers.data_files import LABELS, PIXELS, png, read, refusal, rows, write_folder, write_idx, write_npz

# --- Channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colours", [1, 3])
def test_opaque_arrays_lose_their_alpha_channel(tmp_path: Path, colours: int) -> None:
    opaque = np.full((6, 5, 4, 1), 255, np.uint8)
    toy = read(write_npz(tmp_path, images=np.concatenate([PIXELS[..., :colours], opaque], 3), labels=LABELS))
    assert (rows(toy) == PIXELS[..., :colours]).all()


def test_transparent_arrays_are_composited_on_the_background(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=np.zeros((6, 5, 4, 4), np.uint8), labels=LABELS)
    assert (rows(read(file, background="white")) == np.full((6, 5, 4, 3), 255)).all()


# --- Names and labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [" lead", "trail ", "\u3000wide"])
@pytest.mark.parametrize("what", ["labels", "groups"])
def test_names_with_spaces_around_them_are_refused(tmp_path: Path, name: str, what: str) -> None:
    names = np.array([name, "ant"] * 3)
    message = refusal(write_npz(tmp_path, **({"images": PIXELS, "labels": LABELS} | {what: names})))
    kind = {"labels": "class", "groups": "group"}[what]
    assert f"the {kind} name {name!r} begins or ends with a space" in message
    assert message.endswith(f"; rename the {kind}")


def test_a_table_of_labels_next_to_images_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (write_folder(tmp_path, ("images",) * 3) / "labels.csv").write_text("id,label\n0,0\n")
    message = refusal(tmp_path)
    assert "labels are read from folder names, not from labels.csv: put the images into one folder a class" in message


@pytest.mark.parametrize("names", ["images", "Photos", "train/images"])
def test_one_folder_of_all_images_is_not_a_class(tmp_path: Path, names: str) -> None:
    write_folder(tmp_path, (names,) * 3)
    message = refusal(tmp_path)
    assert f"{tmp_path / names} holds all images, and would be their one class, {names[-6:]!r}" in message


def test_classes_csv_makes_one_folder_of_all_images_a_class(tmp_path: Path) -> None:
    (write_folder(tmp_path, ("images",) * 3) / "classes.csv").write_text("folder,class\nimages,ant\n")
    assert read(tmp_path).classes == ("ant",)


# --- Pixels -----------------------------------------------------------------------------------------------------------


def test_pixels_of_0_and_1_are_refused(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS // 128, labels=LABELS)
    assert refusal(file) == f"{file}: the largest pixel is 1, so every image is black; write pixels of 0 to 255"


@pytest.mark.parametrize("largest", [0, 2])
def test_dark_pixels_are_read(tmp_path: Path, largest: int) -> None:
    file = write_npz(tmp_path, images=np.full_like(PIXELS, largest), labels=LABELS)
    assert read(file).digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("damaged", "others"), [(1, ""), (3, ""), (5, ""), (6, "; 1 more")], ids=["one", "three", "five", "six"]
)
def test_the_first_damaged_images_are_named_and_all_counted(tmp_path: Path, damaged: int, others: str) -> None:
    write_folder(tmp_path)
    for k in range(damaged):
        (tmp_path / "cat" / f"short-{k}.png").write_bytes(png(PIXELS[0, :3]))
    message = refusal(tmp_path)
    assert (message.count("(row "), message.count("has 3×4 pixels")) == (min(5, damaged), min(5, damaged))
    assert message.endswith(f"make them equal{others}")


def test_a_damaged_file_of_all_images_is_named_once(tmp_path: Path) -> None:
    file = write_idx(tmp_path) / "train-images-idx3-ubyte"
    file.write_bytes(gzip.compress(file.read_bytes())[:-8])
    assert refusal(tmp_path).count("is a damaged gzip file") == 1
