"""Exports read back, by Fount and by the libraries they are for: names, groups, labels and pixels are equal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fount.readers import DataError, Dataset, DatasetSource, read_dataset
from tests.contract.commands import fount
from tests.contract.exports import FORMATS, use_small_parts
from tests.contract.fake_plans import FakePlans, row_pixels, serving_plans

CLASSES, GROUPS = ("zéro", "二", "Ёж и я"), ("nord", "süd")
ROWS = [row for row in range(40) if row != 7]
EXPECTED = sorted(
    (CLASSES[row % 3], "none" if row % 5 == 4 else GROUPS[row % 2], row_pixels(row).tobytes()) for row in ROWS
)
"""Class, group and pixels of every row; every fifth has no group."""

Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Exports 39 rows in four parts."""
    use_small_parts(monkeypatch)
    Path(tmp_path, "plan.yaml").write_text("dataset: digits\n")

    def run(format: str, groups: tuple[str, ...] = GROUPS, rejected: frozenset[int] = frozenset({7})) -> Path:
        gateway = FakePlans(classes=CLASSES, groups=groups, rejected=rejected)
        out = tmp_path / format
        with serving_plans(gateway) as server:
            result = fount(
                "pull", str(tmp_path / "plan.yaml"), "--out", str(out), "--format", format, "--server", server
            )
        assert result.exit_code == 0, result.output
        return out

    return run


def read(path: Path) -> Dataset:
    return read_dataset(DatasetSource(name="again", path=path))


def rows_of(dataset: Dataset) -> list[tuple[str, str, bytes]]:
    train = dataset.splits["train"]
    images = train.images(np.arange(len(train)))
    groups = [""] * len(train) if train.groups is None else [dataset.groups[group] for group in train.groups]
    names = [dataset.classes[label] for label in train.labels]
    return sorted((name, group, image.tobytes()) for name, group, image in zip(names, groups, images, strict=True))


# --- By Fount ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["", "data"], ids=["the export", "its data"])
@pytest.mark.parametrize("format", ["parquet", "npz", "folder"])
def test_fount_reads_an_export_back(export: Export, format: str, folder: str) -> None:
    dataset = read(export(format) / folder)
    assert (dataset.format, dataset.classes, sorted(dataset.groups)) == (format, CLASSES, ["none", *GROUPS])
    assert rows_of(dataset) == EXPECTED


@pytest.mark.parametrize("format", ["parquet", "npz", "folder"])
def test_fount_reads_an_export_without_groups_back(export: Export, format: str) -> None:
    dataset = read(export(format, groups=()))
    assert (dataset.classes, dataset.groups) == (CLASSES, ())
    assert rows_of(dataset) == sorted((name, "", pixels) for name, _, pixels in EXPECTED)


@pytest.mark.parametrize("format", ["parquet", "npz", "folder"])
def test_fount_reads_past_a_part_without_rows(export: Export, format: str) -> None:
    dataset = read(export(format, rejected=frozenset(range(10, 20))))
    assert (len(dataset.splits["train"]), dataset.digest[:7]) == (30, "sha256:")


def test_fount_names_a_format_it_can_read_instead_of_webdataset(export: Export) -> None:
    with pytest.raises(DataError, match="holds tar files, as WebDataset reads them and Fount does not"):
        read(export("webdataset"))


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_is_complete_is_not_written_again(export: Export, format: str) -> None:
    out = export(format)
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file() and ".fount" not in file.parts}
    assert export(format) == out
    assert {file: file.stat().st_mtime_ns for file in times} == times


def test_a_list_that_was_changed_is_written_again(export: Export) -> None:
    out = export("folder")
    (out / "data" / "classes.csv").write_text("folder,class\n")
    assert read(export("folder")).classes == CLASSES


# --- By other libraries -----------------------------------------------------------------------------------------------


def name_of(group: int | None) -> str:
    return "none" if group is None or np.isnan(group) or group < 0 else GROUPS[int(group)]


def test_pandas_reads_parquet(export: Export) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pandas.read_parquet(export("parquet") / "data")
    pixels = [decode(image["bytes"]) for image in table["image"]]
    labels, groups = table["label"].tolist(), table["group"].tolist()
    found = zip((CLASSES[label] for label in labels), map(name_of, groups), pixels, strict=True)
    assert sorted(found) == EXPECTED


def test_hugging_face_reads_parquet(export: Export, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.load_dataset(str(export("parquet")), cache_dir=str(tmp_path / "cache"), split="train")
    names, groups = (rows.features[name].names for name in ("label", "group"))
    assert (tuple(names), tuple(groups)) == (CLASSES, GROUPS)
    found = [(names[row["label"]], name_of(row["group"]), np.asarray(row["image"]).tobytes()) for row in rows]
    assert sorted(found) == EXPECTED


def test_numpy_reads_npz(export: Export) -> None:
    found = []
    for file in (export("npz") / "data").glob("*.npz"):
        with np.load(file, allow_pickle=False) as arrays:
            assert (tuple(arrays["classes"]), tuple(arrays["groups"])) == (CLASSES, GROUPS)
            names = [str(arrays["classes"][label]) for label in arrays["label"]]
            groups = map(name_of, arrays["group"].tolist())
            found += zip(names, groups, [image.tobytes() for image in arrays["images"]], strict=True)
    assert sorted(found) == EXPECTED


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_webdataset_reads_tar_files(export: Export) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    files = sorted(map(str, (export("webdataset") / "data").glob("*.tar")))
    rows = webdataset.WebDataset(files, shardshuffle=False).to_tuple("png", "cls", "json")
    found = []
    for png, label, columns in rows:
        names = json.loads(columns)
        assert CLASSES[int(label)] == names["class"]
        found.append((names["class"], names["group_name"] or "none", decode(png)))
    assert sorted(found) == EXPECTED


def test_hugging_face_reads_class_folders(export: Export, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    data = str(export("folder") / "data")
    rows = datasets.load_dataset("imagefolder", data_dir=data, cache_dir=str(tmp_path / "cache"), split="train")
    names = rows.features["label"].names
    found = [(names[row["label"]], np.asarray(row["image"]).tobytes()) for row in rows]
    assert sorted(found) == sorted((name, pixels) for name, _, pixels in EXPECTED)


def test_a_folder_per_class_is_named_as_the_class(export: Export) -> None:
    data = export("folder") / "data"
    assert {each.name for each in data.iterdir() if each.is_dir()} == set(CLASSES)


def decode(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image).tobytes()
