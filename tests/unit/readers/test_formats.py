"""NPZ, IDX and image folders: what is read, and how damage is refused."""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fount.readers import DataError, Limits
from tests.unit.readers.data_files import (
    LABELS,
    PIXELS,
    check_damage_is_refused,
    png,
    read,
    refusal,
    rows,
    write_folder,
    write_idx,
    write_npz,
)

ORDER = np.argsort(LABELS, kind="stable")


# --- NPZ --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("images", [PIXELS, PIXELS[..., 0]], ids=["colours", "grey"])
def test_npz_gives_back_what_was_saved(tmp_path: Path, save, images) -> None:
    save(tmp_path / "toy.npz", images=images, labels=LABELS)
    toy = read(tmp_path / "toy.npz")
    assert (rows(toy).reshape(images.shape) == images).all()
    assert (toy.classes, toy.splits["train"].labels.tolist()) == (("0", "1", "2"), LABELS.tolist())


def test_npz_as_keras_saves_it_has_two_splits(tmp_path: Path) -> None:
    file = write_npz(tmp_path, x_train=PIXELS, y_train=LABELS[:, None], x_test=PIXELS[:2], y_test=LABELS[:2, None])
    toy = read(file)
    assert (list(toy.splits), rows(toy, "test").shape) == (["train", "test"], (2, 5, 4, 3))


def test_a_stored_array_is_mapped_rather_than_read(tmp_path: Path) -> None:
    pixels = read(write_npz(tmp_path, images=PIXELS, labels=LABELS)).splits["train"].pixels
    assert isinstance(pixels.array.base, np.memmap) or isinstance(pixels.array, np.memmap)


def test_a_mapped_file_that_changed_is_not_read(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=LABELS)
    train = read(file).splits["train"]
    os.truncate(file, 100)
    with pytest.raises(DataError, match="changed after it was read"):
        train.images(np.array([0]))


NPZ_FAULTS = {
    "float": ({"images": PIXELS / 255, "labels": LABELS}, "pixels are float64, of unknown scale and perhaps NaN"),
    "NaN": ({"images": PIXELS * np.float32("nan"), "labels": LABELS}, "pixels are float32"),
    "int": ({"images": PIXELS.astype(int), "labels": LABELS}, "pixels are int64; write uint8, 0 to 255"),
    "objects": ({"images": np.array([None] * 6), "labels": LABELS}, "images: is an array of Python objects"),
    "flat": ({"images": PIXELS.reshape(6, -1), "labels": LABELS}, "the shape is (6, 60); images are (n, H, W)"),
    "channels first": (
        {"images": PIXELS.reshape(6, 3, 4, 5), "labels": LABELS},
        "the shape is (6, 3, 4, 5); channels come last, 1 for grey and 3 for colour; write numpy.moveaxis",
    ),
    "five channels": ({"images": np.zeros((6, 5, 4, 5), np.uint8), "labels": LABELS}, "leave the others out"),
    "transparent colours": (
        {
            "images": np.dstack([PIXELS.reshape(30, 4, 3), np.full((30, 4), 9, np.uint8)]).reshape(6, 5, 4, 4),
            "labels": LABELS,
        },
        "row 0 has transparent pixels (mode RGBA); set background to white or black",
    ),
    "transparent greys": (
        {"images": PIXELS[..., :2], "labels": LABELS},
        "row 0 has transparent pixels (mode LA); set background to white or black",
    ),
    "no labels": ({"images": PIXELS}, "lacks the array labels; add it"),
    "no images": ({"pixels": PIXELS}, "holds pixels; name its arrays images and labels"),
    "fewer labels": ({"images": PIXELS, "labels": LABELS[:5]}, "holds 6 images in images and 5 values in labels"),
    "float labels": ({"images": PIXELS, "labels": LABELS / 2}, "labels: values are float64; write whole numbers"),
    "one-hot labels": ({"images": PIXELS, "labels": np.eye(6, dtype=int)}, "labels: the shape is (6, 6)"),
    "empty": ({"images": PIXELS[:0], "labels": LABELS[:0]}, "has no rows in train"),
    "no pixels": ({"images": PIXELS[:, :0], "labels": LABELS}, "an image has at least one pixel"),
}


@pytest.mark.parametrize(("arrays", "message"), NPZ_FAULTS.values(), ids=NPZ_FAULTS.keys())
def test_a_faulty_npz_is_refused_with_the_reason(tmp_path: Path, arrays, message: str) -> None:
    file = write_npz(tmp_path, **arrays)
    assert message in refusal(file)


@pytest.mark.parametrize("sizes", [(5, 5), (5, 6)], ids=["one shape", "ragged"])
def test_an_array_of_objects_is_refused_with_both_remedies(tmp_path: Path, sizes: tuple[int, int]) -> None:
    images = np.empty(2, object)
    images[:] = [np.zeros((side, 5), np.uint8) for side in sizes]
    message = refusal(write_npz(tmp_path, images=images, labels=LABELS[:2]))
    assert "if the images have one shape, save np.stack(images), otherwise resize them to one shape first" in message


def test_npz_may_name_its_classes(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=LABELS, classes=np.array(["cat", "ant", "bee"]))
    assert (read(file).classes, read(file, classes=("x", "y", "z")).classes) == (("cat", "ant", "bee"), ("x", "y", "z"))


def test_npz_may_list_its_labels_as_classes(tmp_path: Path) -> None:
    assert read(write_npz(tmp_path, images=PIXELS, labels=LABELS, classes=np.arange(3))).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": np.array(["ant", "bee", "dog"])}, "test-b.npz names other classes or groups than"),
        ({"images": PIXELS[:, :3]}, "hold images of 5×4×3 and 3×4×3; make them equal"),
        ({"groups": LABELS}, "some files have groups, some do not; make them alike"),
    ],
    ids=["classes", "shape", "groups"],
)
def test_npz_files_that_do_not_belong_together_are_refused(tmp_path: Path, change, message: str) -> None:
    arrays = {"images": PIXELS, "labels": LABELS, "classes": np.array(["ant", "bee", "cat"])}
    for name, each in (("train-a", arrays), ("test-b" if "classes" in change else "train-b", arrays | change)):
        np.savez(tmp_path / f"{name}.npz", **each)
    assert message in refusal(tmp_path)


def test_a_truncated_npz_is_refused(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS, labels=LABELS)
    file.write_bytes(file.read_bytes()[:-40])
    assert "is a damaged NPZ file" in refusal(file)


def write_member(path: Path, header: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """An NPZ whose image header is arbitrary text."""
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path / "toy.npz", "w", compression) as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
        with archive.open("labels.npy", "w") as stream:
            np.save(stream, LABELS)
    return path / "toy.npz"


def test_a_header_that_announces_more_than_follows_is_refused(tmp_path: Path) -> None:
    file = write_member(tmp_path, "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 999, 999)}", bytes(24))
    assert "its header announces 6 × 999 × 999 uint8, 24 bytes follow" in refusal(file)


def test_a_compressed_array_over_the_limit_is_not_decompressed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "toy.npz", images=np.zeros((6, 1000, 1000), np.uint8), labels=LABELS)
    message = refusal(tmp_path / "toy.npz", limits=Limits(max_bytes=1 << 20))
    assert "images: announces 6000128 bytes, and at most 1048576 are read" in message


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_names_of_zero_bytes_are_refused(tmp_path: Path, compression: int) -> None:
    header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (6,)}".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "toy.npz", "w", compression) as archive:
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        with archive.open("images.npy", "w") as stream:
            np.save(stream, PIXELS)
    assert "labels: values are <U0; write whole numbers, or names" in refusal(tmp_path / "toy.npz")


def test_a_header_that_is_not_a_literal_is_refused(tmp_path: Path) -> None:
    assert "images: not a supported array" in refusal(write_member(tmp_path, "__import__('os')", b""))


# --- IDX --------------------------------------------------------------------------------------------------------------


def test_idx_files_become_two_splits(tmp_path: Path) -> None:
    toy = read(write_idx(tmp_path))
    assert (toy.format, toy.shape, toy.classes) == ("idx", (5, 4, 1), ("0", "1", "2"))
    assert (rows(toy)[..., 0] == PIXELS[..., 0]).all()


def test_idx_files_without_a_test_split_have_only_train(tmp_path: Path) -> None:
    assert list(read(write_idx(tmp_path, test=False)).splits) == ["train"]


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    (write_idx(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    assert "lacks t10k-labels-idx1-ubyte; put it there, plain or .gz" in refusal(tmp_path)


def test_an_idx_file_of_no_images_of_absurd_size_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    header = bytes([0, 0, 8, 3]) + np.array([0, 2**32 - 1, 2**32 - 1], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    assert "announces 0 × 4294967295 × 4294967295 bytes, more than" in refusal(tmp_path)


def test_a_plain_idx_file_truncated_while_open_is_not_read(tmp_path: Path) -> None:
    train = read(write_idx(tmp_path)).splits["train"]
    os.truncate(tmp_path / "train-images-idx3-ubyte", 16)
    with pytest.raises(DataError, match="changed after it was read"):
        train.images(np.array([5]))


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_folder_classes_are_sorted_by_name(tmp_path: Path) -> None:
    toy = read(write_folder(tmp_path))
    assert (toy.classes, toy.splits["train"].labels.tolist()) == (("ant", "bee", "cat"), [0, 0, 1, 1, 2, 2])
    assert (rows(toy) == PIXELS[ORDER]).all()


def test_folders_train_and_test_are_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test")
    assert {name: len(split) for name, split in read(tmp_path).splits.items()} == {"train": 6, "test": 6}


def test_a_class_only_in_the_test_folder_is_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", ("ant", "bee", "dog"))
    assert read(tmp_path).classes == ("ant", "bee", "cat", "dog")


def test_groups_are_read_from_their_csv_file(tmp_path: Path) -> None:
    write_folder(tmp_path)
    lines = [
        f"{('ant', 'bee', 'cat')[label]}/{row}.png,{'old' if row < 3 else 'new'}" for row, label in enumerate(LABELS)
    ]
    (tmp_path / "groups.csv").write_text("\n".join(["path,group", *lines]))
    toy = read(tmp_path)
    assert (toy.groups, toy.splits["train"].groups.tolist()) == (("new", "old"), [1, 0, 1, 0, 1, 0])


def test_an_image_without_a_group_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "groups.csv").write_text("path,group\nant/0.png,old\n")
    assert "groups.csv has no line for ant/3.png; add one" in refusal(tmp_path)


def test_an_image_in_two_groups_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "groups.csv").write_text("path,group\nant/0.png,old\nant/0.png,new\n")
    assert "groups.csv, line 3 puts 'ant/0.png' into another group than an earlier line" in refusal(tmp_path)


def test_images_are_resized_and_converted_on_request(tmp_path: Path) -> None:
    assert rows(read(write_folder(tmp_path), size=(2, 3), channels=1)).shape == (6, 2, 3, 1)


def test_arrays_are_resized_and_converted_like_files(tmp_path: Path) -> None:
    file = write_npz(tmp_path, images=PIXELS[ORDER], labels=LABELS[ORDER])
    folder = write_folder(tmp_path / "folder")
    assert (rows(read(file, size=(2, 3), channels=1)) == rows(read(folder, size=(2, 3), channels=1))).all()


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "bee" / "4.png").write_bytes(png(np.zeros((7, 4, 3), np.uint8)))
    assert (
        "bee/4.png (row 3) has 7×4 pixels, the first image 5×4 (height×width); set size, or make them equal"
        in refusal(tmp_path)
    )


def test_a_grey_image_among_coloured_ones_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "bee" / "4.png").write_bytes(png(PIXELS[4, ..., 0]))
    assert "bee/4.png (row 3) has 1 channels, the first image has 3; set channels" in refusal(tmp_path)


def test_an_image_in_ink_colours_is_converted_on_request(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 5)).save(write_folder(tmp_path) / "ant" / "0.jpg")
    (tmp_path / "ant" / "0.png").unlink()
    assert "has pixels of mode CMYK; set channels to 1 or 3" in refusal(tmp_path)
    assert rows(read(tmp_path, channels=3)).shape == (6, 5, 4, 3)


def test_a_damaged_image_is_named_with_its_row(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "cat" / "2.png"
    file.write_bytes(file.read_bytes()[:60])
    assert f"{file} (row 4) is cut off (OSError: image file is truncated); restore or remove it" in refusal(tmp_path)


def bomb() -> bytes:
    """A PNG that announces 30 000 × 30 000 pixels in a few hundred bytes."""
    return png_of(30_000, 30_000, 8, bytes(9))


def png_of(width: int, height: int, bits: int, lines: bytes) -> bytes:
    """An RGB PNG with an arbitrary header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_16_bit_colours_are_not_truncated_to_8(tmp_path: Path) -> None:
    lines = b"".join(b"\0" + bytes(6 * 4) for _ in range(5))
    (write_folder(tmp_path) / "cat" / "5.png").write_bytes(png_of(4, 5, 16, lines))
    assert "cat/5.png (row 5) has 16 bits per channel, and 8 are read; convert it" in refusal(tmp_path)


@pytest.mark.parametrize("row", ["ant/0.png", "cat/5.png"])
def test_an_image_that_expands_into_gigabytes_is_refused_by_its_header(tmp_path: Path, row: str) -> None:
    (write_folder(tmp_path) / row).write_bytes(bomb())
    assert "make it smaller" in refusal(tmp_path)


def test_an_image_over_the_configured_limit_is_refused(tmp_path: Path) -> None:
    message = refusal(write_folder(tmp_path), limits=Limits(max_pixels=19))
    assert "has 5×4 pixels (height×width), and 19 are allowed" in message


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "dog").mkdir()
    assert refusal(tmp_path) == f"{tmp_path}/dog has no image; remove the folder, or put the images of the class there"


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root, outside = write_folder(tmp_path / "root"), write_folder(tmp_path / "outside")
    (root / "dog").symlink_to(outside / "cat")
    assert f"{root}/dog is a link that leaves {root}" in refusal(root)


def test_an_image_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root, outside = write_folder(tmp_path / "root"), write_folder(tmp_path / "outside")
    (root / "cat" / "9.png").symlink_to(outside / "cat" / "2.png")
    assert "9.png is a link that leaves" in refusal(root)


def test_a_circular_link_is_refused(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "ant" / "1.png").symlink_to("1.png")
    assert "ant/1.png cannot be read: Too many levels of symbolic links" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["ant/#.png", "cat/9.png"])
def test_a_pipe_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    os.mkfifo(write_folder(tmp_path) / name)
    assert f"{name} is not a regular file; give a file" in refusal(tmp_path)


def test_a_class_folder_with_control_characters_is_refused(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "cat").rename(tmp_path / "c\nat")
    assert "the class name 'c\\nat' has control characters" in refusal(tmp_path)


MISPLACED = {
    "a table next to the images": ("ant/metadata.jsonl", "labels are read from folder names, not from metadata.jsonl"),
    "a text next to the images": ("ant/notes.txt", "is not a supported image file"),
    "an image next to the classes": ("9.png", "is next to the class folders"),
    "a text next to the classes": ("notes.txt", "is neither a class folder nor an image"),
    "a folder within a class": ("ant/more/9.png", "is a folder within a class"),
    "a class next to train": ("train/ant/9.png", "is next to"),
}


@pytest.mark.parametrize(("path", "message"), MISPLACED.values(), ids=MISPLACED.keys())
def test_a_misplaced_entry_is_named(tmp_path: Path, path: str, message: str) -> None:
    (write_folder(tmp_path) / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(png(PIXELS[0]))
    assert message in refusal(tmp_path)


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    (write_folder(tmp_path) / ".DS_Store").write_bytes(b"x")
    assert len(read(tmp_path).splits["train"]) == 6


def test_an_image_replaced_after_it_was_read_is_refused(tmp_path: Path) -> None:
    train = read(write_folder(tmp_path)).splits["train"]
    (tmp_path / "ant" / "0.png").write_bytes(png(PIXELS[5]) + b"0")
    with pytest.raises(DataError, match="changed after it was read"):
        train.images(np.array([0]))


# --- Damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npz", "idx", "png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
def test_random_damage_is_detected_and_raises_only_data_errors(tmp_path: Path, kind: str) -> None:
    if kind == "npz":
        path = file = write_npz(tmp_path, images=PIXELS, labels=LABELS)
    elif kind == "idx":
        path = write_idx(tmp_path)
        file = path / "train-images-idx3-ubyte"
    else:
        path, file = write_folder(tmp_path), tmp_path / "ant" / f"0.{kind}"
        Image.fromarray(np.repeat(np.repeat(PIXELS[0], 4, 0), 4, 1)).resize((4, 5)).save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Pillow and zipfile, about the damage
        check_damage_is_refused(path, file, seed=1)
