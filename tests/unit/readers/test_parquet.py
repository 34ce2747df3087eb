"""Parquet: the two image column types, row groups, class names, damage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fount.readers import DataError, Limits
from tests.unit.readers.data_files import LABELS, PIXELS, check_damage_is_refused, png, read, refusal, rows

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; pip install 'fount[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")

ENCODED = [png(image) for image in PIXELS]
STRUCTS = [{"bytes": encoded, "path": f"{row}.png"} for row, encoded in enumerate(ENCODED)]


def write(file: Path, *, metadata: dict[str, str] | None = None, row_group_size: int = 2, **columns) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": ENCODED, "label": LABELS} | columns
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=row_group_size)
    return file


@pytest.mark.parametrize("images", [ENCODED, STRUCTS], ids=["bytes", "struct"])
def test_images_are_read_in_any_order_across_row_groups(tmp_path: Path, images) -> None:
    train = read(write(tmp_path / "toy.parquet", image=images)).splits["train"]
    assert (train.images(np.array([5, 0, 3, 5])) == PIXELS[[5, 0, 3, 5]]).all()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(ENCODED, pa.large_binary()),
        pa.array(ENCODED, pa.binary_view()),
        pa.array(ENCODED).dictionary_encode(),
        pa.array([each.ljust(200, b"\0") for each in ENCODED], pa.binary(200)),
        pa.array(STRUCTS, pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])),
    ],
    ids=["large", "view", "dictionary", "fixed size", "struct of views"],
)
def test_images_are_read_whatever_kind_of_bytes_they_are(tmp_path: Path, column) -> None:
    train = read(write(tmp_path / "toy.parquet", image=column, row_group_size=6)).splits["train"]
    assert (train.images(np.array([5, 0, 3, 5])) == PIXELS[[5, 0, 3, 5]]).all()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("is_dictionary", [False, True], ids=["plain", "dictionary"])
def test_labels_and_groups_are_read_whatever_kind_of_text_they_are(tmp_path: Path, kind, *, is_dictionary) -> None:
    if is_dictionary and kind == pa.string_view():
        pytest.skip("pyarrow makes no dictionaries of views")
    names = pa.array(["ant", "bee", "cat", "ant", "bee", "cat"], kind)
    column = names.dictionary_encode() if is_dictionary else names
    toy = read(write(tmp_path / "toy.parquet", label=column, group=column))
    assert (toy.classes, toy.splits["train"].labels.tolist()) == (("ant", "bee", "cat"), [0, 1, 2, 0, 1, 2])
    assert (toy.groups, toy.splits["train"].groups.tolist()) == (("ant", "bee", "cat"), [0, 1, 2, 0, 1, 2])


def test_names_that_are_all_different_are_refused_before_they_are_made(tmp_path: Path) -> None:
    file = write(tmp_path / "toy.parquet", label=[f"row {row}" for row in range(6)])
    message = refusal(file, limits=Limits(max_classes=5))
    assert "has 6 values of label, and at most 5 are read; check that the column holds a few different ones" in message


def test_a_missing_group_is_a_group_where_the_groups_have_names(tmp_path: Path) -> None:
    names = {"names": ["old", "new"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"group": names}}})}
    toy = read(write(tmp_path / "toy.parquet", metadata=metadata, group=[0, 1, None, 0, 1, None]))
    assert (toy.groups, toy.splits["train"].groups.tolist()) == (("old", "new", "none"), [0, 1, 2, 0, 1, 2])
    assert "row 2 has no group; correct the row" in refusal(write(tmp_path / "b.parquet", group=[0, 1, None, 0, 1, 2]))


def test_a_group_beyond_the_named_ones_is_refused_with_its_row(tmp_path: Path) -> None:
    names = {"names": ["old", "new"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"group": names}}})}
    message = refusal(write(tmp_path / "toy.parquet", metadata=metadata, group=[0, 1, 0, 7, 1, 1]))
    assert "toy.parquet, row 3 has group 7, outside 0 to 1; correct the row" in message


def test_an_image_repeated_by_a_dictionary_is_decompressed_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [ENCODED[0] + bytes(10_000)] * 6
    file = write(tmp_path / "toy.parquet", image=images, row_group_size=6)
    assert file.stat().st_size < 10_000
    monkeypatch.setattr("fount.readers.parquet._BATCH_BYTES", 25_000)
    monkeypatch.setattr("fount.readers.parquet._MAX_GROUP_BYTES", 50_000)
    assert "row group 0 holds more than 50000 bytes of images; write smaller row groups" in refusal(file)
    monkeypatch.setattr("fount.readers.parquet._MAX_GROUP_BYTES", 70_000)
    assert (rows(read(file)) == PIXELS[0]).all()


def test_row_groups_that_do_not_fit_the_cache_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fount.readers.parquet._CACHE_BYTES", 1)
    train = read(write(tmp_path / "toy.parquet")).splits["train"]
    assert (train.images(np.arange(6)[::-1]) == PIXELS[::-1]).all()
    assert len(train.pixels.cache) == 1


def test_files_of_a_folder_are_joined_to_splits(tmp_path: Path) -> None:
    for name in ("train-0", "train-1", "test-0"):
        write(tmp_path / "data" / f"{name}.parquet")
    toy = read(tmp_path)
    assert (rows(toy) == np.concatenate([PIXELS, PIXELS])).all()
    assert len(toy.splits["test"]) == 6


def test_string_labels_are_classes_sorted_by_name(tmp_path: Path) -> None:
    toy = read(write(tmp_path / "toy.parquet", label=["cat", "ant", "cat", "bee", "ant", "cat"]))
    assert (toy.classes, toy.splits["train"].labels.tolist()) == (("ant", "bee", "cat"), [2, 0, 2, 1, 0, 2])


def test_class_names_are_read_from_hugging_face_metadata(tmp_path: Path) -> None:
    features = {"info": {"features": {"label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}}}
    file = write(tmp_path / "toy.parquet", metadata={"huggingface": json.dumps(features)})
    assert read(file).classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "metadata",
    [
        100_000 * "[",
        json.dumps({"info": {"features": {"label": {"names": "abc", "_type": "ClassLabel"}}}}),
    ],
    ids=["deep", "text for names"],
)
def test_damaged_hugging_face_metadata_is_ignored(tmp_path: Path, metadata: str) -> None:
    assert read(write(tmp_path / "toy.parquet", metadata={"huggingface": metadata})).classes == ("0", "1", "2")


def test_a_group_column_is_found_by_its_name(tmp_path: Path) -> None:
    write(tmp_path / "toy.parquet", site=["b", "a", "b", "a", "b", "a"])
    assert read(tmp_path / "toy.parquet").groups == ()
    assert read(tmp_path / "toy.parquet", group="site").groups == ("a", "b")


FAULTS = {
    "no label": ({"label": None}, "has no column label; it has image"),
    "no image": ({"image": None}, "has no column image; it has label"),
    "numbers for images": ({"image": [1, 2, 3, 4, 5, 6]}, "the column image is int64; images must be bytes"),
    "float labels": ({"label": LABELS / 2}, "the column label is double; write whole numbers, or strings"),
    "a null label": ({"label": [0, 1, None, 0, 1, 2]}, "row 2 has no label; correct the row"),
    "a null image": ({"image": [*ENCODED[:4], None, ENCODED[5]]}, "row 4 has no image bytes"),
    "only a path": (
        {"image": [*STRUCTS[:5], {"bytes": None, "path": "x"}]},
        "row 5 has no image bytes, or only a path",
    ),
    "not an image": ({"image": [*ENCODED[:3], b"GIF89a", *ENCODED[4:]]}, "row 3 is not a supported image"),
    "another size": ({"image": [*ENCODED[:5], png(PIXELS[5, :4])]}, "row 5 has 4×4 pixels, the first image 5×4"),
    "a path for a class": ({"label": ["a", "a", "a", "a", "a", "../x"]}, "the class name '../x' is a path"),
    "no rows": ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "has no rows in train"),
}


@pytest.mark.parametrize(("columns", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_faulty_file_is_refused_with_its_row(tmp_path: Path, columns, message: str) -> None:
    file = write(tmp_path / "toy.parquet", **columns)
    assert message in refusal(file)
    assert str(file) in refusal(file)


def test_a_file_of_no_split_among_splits_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet")
    write(tmp_path / "more.parquet")
    assert "more.parquet begins with none of train, test" in refusal(tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "toy.parquet")
    file.write_bytes(file.read_bytes()[:-10])
    assert f"{file} is a damaged Parquet file, or none" in refusal(file)


def test_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    train = read(write(tmp_path / "toy.parquet")).splits["train"]
    write(tmp_path / "toy.parquet", row_group_size=3)
    with pytest.raises(DataError, match="changed after it was read"):
        train.images(np.array([5]))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "toy.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'fount[parquet]'" in refusal(file)


def test_random_damage_is_detected_and_raises_only_data_errors(tmp_path: Path) -> None:
    file = write(tmp_path / "toy.parquet")
    check_damage_is_refused(file, file, seed=2)


# --- Names in the card ------------------------------------------------------------------------------------------------

NAMES = "{name: label, dtype: {class_label: {names: {'0': rose, '1': no, '2': 010}}}}"
CARDS = {
    "one": (f"dataset_info: {{features: [{{name: image, dtype: image}}, {NAMES}]}}", ("rose", "no", "010")),
    "a list of names": (
        "dataset_info: {features: [{name: label, dtype: {class_label: {names: [a, b, c]}}}]}",
        ("a", "b", "c"),
    ),
    "several": (
        f"dataset_info: [{{config_name: x, features: []}}, {{config_name: toy, features: [{NAMES}]}}]",
        ("rose", "no", "010"),
    ),
    "none of these files": (f"dataset_info: [{{config_name: x}}, {{features: [{NAMES}]}}]", ("0", "1", "2")),
    "no names": ("dataset_info: {features: [{name: label, dtype: int64}]}", ("0", "1", "2")),
    "a label without a name": (
        "dataset_info: {features: [{name: label, dtype: {class_label: {names: {'1': a}}}}]}",
        ("0", "1", "2"),
    ),
    "no YAML": ("dataset_info: [", ("0", "1", "2")),
    "other YAML": ("12", ("0", "1", "2")),
}


@pytest.mark.parametrize(("card", "classes"), CARDS.values(), ids=CARDS.keys())
def test_numbers_have_the_names_of_the_card(tmp_path: Path, card: str, classes: tuple[str, ...]) -> None:
    write(tmp_path / "toy" / "train-0.parquet")
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n# Flowers\n")
    assert read(tmp_path).classes == classes


def test_names_of_the_schema_precede_those_of_the_card(tmp_path: Path) -> None:
    schema = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    write(tmp_path / "train-0.parquet", metadata={"huggingface": json.dumps(schema)})
    (tmp_path / "README.md").write_text(f"---\n{CARDS['one'][0]}\n---\n")
    assert read(tmp_path).classes == ("a", "b", "c")


def test_labels_that_are_names_stay_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", label=["tulip", "rose", "tulip"] * 2)
    (tmp_path / "README.md").write_text(f"---\n{CARDS['one'][0]}\n---\n")
    assert read(tmp_path).classes == ("rose", "tulip")
