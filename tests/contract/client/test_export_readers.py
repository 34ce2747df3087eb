"""Files of `fount pull`, read by the programs they are for."""

import csv
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.contract.commands import fount
from tests.contract.exports import use_small_parts
from tests.contract.fake_plans import CLASSES, FakePlans, row_pixels, serving_plans

REJECTED = 7
ACCEPTED = [row for row in range(40) if row != REJECTED]


@pytest.fixture
def gateway():
    return FakePlans(groups=("a", "b"), rejected=frozenset({REJECTED}))


@pytest.fixture
def pull(tmp_path, monkeypatch, gateway):
    """Pulls 40 rows with groups, one of them rejected, into four files."""
    use_small_parts(monkeypatch)
    Path(tmp_path, "plan.yaml").write_text("dataset: digits\n")

    def run(format, provenance="full"):
        out = tmp_path / f"{format}-{provenance}"
        options = ("--format", format, "--provenance", provenance, "--server", server)
        result = fount("pull", str(tmp_path / "plan.yaml"), "--out", str(out), *options)
        assert result.exit_code == 0, result.output
        return out

    with serving_plans(gateway) as server:
        yield run


def labels_of(rows):
    return [row % 3 for row in rows]


# --- Parquet ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def parquet():
    return pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def test_parquet_holds_the_rows_in_order(pull, parquet):
    table = parquet.read_table(pull("parquet") / "data")
    assert table["index"].to_pylist() == ACCEPTED
    assert table["label"].to_pylist() == labels_of(ACCEPTED)
    assert table["weight"].to_pylist() == [row % 2 for row in ACCEPTED]


def test_parquet_holds_provenance(pull, parquet):
    rows = parquet.read_table(pull("parquet") / "data").to_pylist()
    assert [row["source"] for row in rows[:4]] == ["real", "resampled", "transformed", "synthesised"]
    assert [row["source_row"] for row in rows[:4]] == [100, 101, 102, None]
    assert (rows[3]["seed"], rows[3]["sample_index"], rows[3]["attempt"]) == (2**64 - 4, 3, 0)
    assert [row["transform_rotate_degrees"] for row in rows[:3]] == [None, None, 1.0]
    assert [row["confidence"] for row in rows[2:4]] == [None, 0.5]
    assert [row["group"] for row in rows[:5]] == [0, 1, 0, 1, None]


@pytest.mark.parametrize(
    ("provenance", "columns"),
    [
        ("none", ["image", "index", "label", "group", "weight"]),
        (
            "ids",
            ["image", "index", "label", "group", "weight", "source", "source_row", "seed", "sample_index", "attempt"],
        ),
    ],
)
def test_parquet_has_only_the_requested_columns(pull, parquet, provenance, columns):
    assert parquet.read_table(pull("parquet", provenance) / "data").column_names == columns


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hugging_face_reads_parquet_as_images_and_class_names(pull, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.load_dataset(str(pull("parquet")), cache_dir=str(tmp_path / "cache"), split="train")
    assert (rows.num_rows, rows.features["label"].names, rows.features["group"].names) == (
        39,
        list(CLASSES),
        ["a", "b"],
    )
    assert isinstance(rows.features["image"], datasets.Image)
    assert (np.asarray(rows[5]["image"]) == row_pixels(5)[..., 0]).all()


def test_hugging_face_reads_past_a_part_of_rejected_rows(pull, gateway, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    gateway.rejected = frozenset(range(10))
    rows = datasets.load_dataset(str(pull("parquet")), cache_dir=str(tmp_path / "cache"), split="train")
    assert rows["index"][:] == list(range(10, 40))


# --- WebDataset -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_webdataset_reads_images_classes_and_columns(pull):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    files = sorted(map(str, (pull("webdataset") / "data").glob("*.tar")))
    rows = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil").to_tuple("png", "cls", "json"))
    assert [message["index"] for _, _, message in rows] == ACCEPTED
    assert [label for _, label, _ in rows] == labels_of(ACCEPTED)
    assert (np.asarray(rows[5][0].convert("L")) == row_pixels(5)[..., 0]).all()
    assert (rows[3][2]["source"], rows[3][2]["source_row"], rows[3][2]["class"]) == ("synthesised", None, "zero")


def test_webdataset_members_have_no_owner_and_no_time(pull):
    with tarfile.open(next((pull("webdataset") / "data").glob("*.tar"))) as file:
        members = file.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }


# --- NPZ --------------------------------------------------------------------------------------------------------------


def test_numpy_reads_npz(pull):
    (first, *_), arrays = sorted((pull("npz") / "data").glob("*.npz")), {}
    with np.load(first, allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["index"].tolist() == [row for row in range(10) if row != REJECTED]
    assert (arrays["images"] == np.stack([row_pixels(row) for row in arrays["index"]])).all()
    assert arrays["classes"].tolist() == list(CLASSES)
    assert arrays["groups"].tolist() == ["a", "b"]
    assert arrays["source"].tolist()[:4] == [1, 2, 3, 4]
    assert arrays["source_row"].tolist()[:4] == [100, 101, 102, -1]


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_class_folder_holds_its_images(pull):
    out = pull("folder")
    folders = sorted(path.name for path in (out / "data").iterdir() if path.is_dir())
    assert folders == ["one-two_1", "x_2", "zero"]
    assert len(list((out / "data" / "zero").iterdir())) == sum(row % 3 == 0 for row in ACCEPTED)
    with Image.open(out / "data" / "x_2" / "000000005.png") as image:
        assert (np.asarray(image) == row_pixels(5)[..., 0]).all()


def test_rows_csv_describes_each_file(pull):
    out = pull("folder")
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == ACCEPTED
    assert (rows[3]["file"], rows[3]["class"], rows[3]["source"]) == ("zero/000000003.png", "zero", "synthesised")
    assert (rows[3]["source_row"], rows[2]["transform_rotate_degrees"]) == ("", "1.0")
    assert all((out / "data" / row["file"]).is_file() for row in rows)


def test_exporting_arrays_loads_no_parquet(pull):
    code = "import sys; import fount.cli.pull; sys.exit('pyarrow' in sys.modules or 'webdataset' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_json_columns_are_json(pull):
    with tarfile.open(next((pull("webdataset") / "data").glob("*00000-of*.tar"))) as file:
        text = file.extractfile("000000000.json").read()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["confidence"] is None
