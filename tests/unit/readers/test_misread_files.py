"""Files that could be read as something else than was meant: they are refused with the remedy, or read as meant."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    ("damaged", "others"),
    [(1, ""), (3, ""), (5, ""), (6, "; 1 more"), (99, "; 94 more"), (101, "; at least 95 more")],
    ids=["one", "three", "five", "six", "many", "very many"],
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


# --- Files that are not the data --------------------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * b"a" + b"\nsize 12345\n"
FILES = {
    "an image": "ant/0.png",
    "NPZ": "toy.npz",
    "Parquet": "train.parquet",
    "images of IDX": "train-images-idx3-ubyte",
    "labels of IDX": "train-labels-idx1-ubyte",
}


@pytest.mark.parametrize("name", FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a pointer of Git LFS and not the file; run git lfs pull"),
        (b"", "is empty (0 bytes); restore or remove it"),
    ],
    ids=["pointer", "empty"],
)
def test_a_file_without_its_content_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    write_folder(tmp_path) if name.endswith("png") else write_idx(tmp_path) if "idx" in name else None
    (tmp_path / name).write_bytes(content)
    path = tmp_path / name if name.endswith(("npz", "parquet")) else tmp_path
    assert f"{tmp_path / name}" in (refused := refusal(path))
    assert message in refused


@pytest.mark.parametrize("size", [300, 800], ids=["within its header", "within its pixels"])
def test_a_photo_that_is_cut_off_is_named(tmp_path: Path, size: int) -> None:
    file = write_folder(tmp_path) / "bee" / "9.jpg"
    Image.fromarray(PIXELS[0].repeat(40, 0).repeat(40, 1)).save(file)
    file.write_bytes(file.read_bytes()[:size])
    assert f"{file} (row 4) is cut off" in (message := refusal(tmp_path, size=(5, 4)))
    assert message.endswith("; restore or remove it")


@pytest.mark.parametrize("what", ["labels", "groups", "classes"])
def test_names_that_are_objects_are_refused_with_the_remedy(tmp_path: Path, what: str) -> None:
    names = np.array(["ant", "bee", "cat", "ant", "bee", "cat"], object)
    file = write_npz(tmp_path, **({"images": PIXELS, "labels": LABELS} | {what: names}))
    assert f"save {what}.astype(str), or .astype(int) if they are numbers" in refusal(file)


def test_a_label_of_minus_1_may_mean_unlabelled(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=LABELS - 1)
    assert "row 0 has label -1, outside 0 to 1; in some sets it means unlabelled" in refusal(file)


@pytest.mark.parametrize("name", ["toy.zip", "toy.tar", "toy.tar.gz", "Toy.TGZ"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert refusal(tmp_path / name) == f"{tmp_path / name} is an archive; unpack it, and give the folder"


@pytest.mark.parametrize("name", ["data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"])
def test_a_folder_of_save_to_disk_is_to_be_written_as_parquet(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert "as save_to_disk writes them; write each split as Parquet" in refusal(tmp_path)


@pytest.mark.parametrize("folder", [".", "raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_of_emnist_are_to_be_renamed(tmp_path: Path, folder: str, suffix: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / f"emnist-letters-train-images-idx3-ubyte{suffix}").write_bytes(b"x")
    assert f"; rename it to train-images-idx3-ubyte{suffix}, and" in refusal(tmp_path)
