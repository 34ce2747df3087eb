"""Writers of samples: what is written, and what is refused before any sample is requested."""

import dataclasses
import errno
import json
import shutil
import tracemalloc
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from fount.cli.output.sample_writers import MAX_GRID, SampleRun, open_output, sample_file_name
from fount.errors import OutputError, SampleFailed, output_errors
from fount.readers import DatasetSource, read_dataset
from fount.sampling.types import Chunk, ModelId, Provenance, RowError, SampleShape

SIDE = 8


def piece(start, count, seed=5, labels=None, errors=(), side=SIDE):
    return Chunk(
        provenance=Provenance(
            model=ModelId(name="digits", version="1.0", digest="sha256:a"), seed=seed, numerics="cpu"
        ),
        shape_of_one=SampleShape(dims=(side, side, 1), dtype="uint8", value_range=(0.0, 255.0), encoding="uint8"),
        start_index=start,
        count=count,
        samples=np.full((count, side, side, 1), start % 256, np.uint8),
        labels=None if labels is None else np.array(labels, np.int64),
        errors=tuple(errors),
    )


FAILED = RowError(index=0, code="INTERNAL", message="not finite")


def write(path, chunks, run):
    writer = open_output(str(path), run)
    for chunk in chunks:
        writer.add(chunk)
    writer.finish()


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "run", "message"),
    [
        ("x.jpg", SampleRun(count=1), "has no known suffix"),
        ("x", SampleRun(count=1), "has no known suffix"),
        ("no/x.npz", SampleRun(count=1), "there is no folder"),
        ("no/x/", SampleRun(count=1), "there is no folder"),
        ("x.npz", SampleRun(count=10**9, sample_bytes=10**9), "bytes; .* are free"),
        ("x.png", SampleRun(count=MAX_GRID + 1), "2500 images at most"),
        ("x.png", SampleRun(count=16, sample_bytes=2**25), "2500 images at most"),
        ("x.npz", SampleRun(count=1, encoding="png"), "holds arrays"),
        ("x.png", SampleRun(count=1, encoding="png"), "holds arrays"),
        ("x.png", SampleRun(count=1, channels=4), "images of 4 channels, and PNG has 1 or 3: write a .npz file"),
        ("x/", SampleRun(count=1, channels=2), "images of 2 channels"),
        ("x/", SampleRun(count=1, channels=0), "the samples are vectors: write a .npz or a .png file"),
    ],
    ids=[
        "suffix", "no suffix", "no folder", "no folder above", "disk full", "too many", "too large", "files in npz",
        "files in grid", "four channels in grid", "two channels in folder", "vectors in folder",
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path, name, run, message):
    with pytest.raises(OutputError, match=message):
        open_output(f"{tmp_path}/{name}", run)
    assert list(tmp_path.iterdir()) == []


def test_a_path_without_permission_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(OutputError, match="no permission"):
        open_output(f"{tmp_path}/x.npz", SampleRun(count=1))


def test_an_error_of_the_file_system_names_the_path(tmp_path):
    with pytest.raises(OutputError, match=r"x\.npz cannot be written: No space left on device"), output_errors("x.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["x.png", "x.npz", "x/"])
def test_a_failed_sample_is_not_written(tmp_path, name):
    writer = open_output(f"{tmp_path}/{name}", SampleRun(count=1))
    with pytest.raises(SampleFailed, match="sample 0"):
        writer.add(piece(0, 1, errors=[FAILED]))
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


# --- NPZ --------------------------------------------------------------------------------------------------------------


def test_an_npz_file_holds_samples_and_their_address(tmp_path):
    write(tmp_path / "x.npz", [piece(3, 2, labels=[7, 8]), piece(5, 1, labels=[9])], SampleRun(count=3, start_index=3))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as npz:
        assert npz["samples"].shape == (3, 8, 8, 1)
        assert npz["samples"][:, 0, 0, 0].tolist() == [3, 3, 5]
        assert (npz["labels"].tolist(), npz["indices"].tolist()) == ([7, 8, 9], [3, 4, 5])
        assert (int(npz["seed"]), str(npz["numerics"])) == (5, "cpu")
        assert (str(npz["model"]), str(npz["digest"])) == ("digits:1.0@sha256:a", "sha256:a")


def test_an_npz_file_is_a_data_set_with_the_names_of_the_classes(tmp_path):
    run = SampleRun(count=3, class_names=("null", "日本", "Ёж"))
    write(tmp_path / "x.npz", [piece(0, 3, labels=[1, 2, 1])], run)
    dataset = read_dataset(DatasetSource(name="samples", path=tmp_path / "x.npz"))
    train = dataset.splits["train"]
    assert (dataset.classes, train.labels.tolist()) == (("null", "日本", "Ёж"), [1, 2, 1])
    assert train.images(np.arange(3)).shape == (3, 8, 8, 1)


def test_without_classes_an_npz_file_has_no_labels(tmp_path):
    write(tmp_path / "x.npz", [piece(0, 1)], SampleRun(count=1))
    with np.load(tmp_path / "x.npz") as npz:
        assert "labels" not in npz.files


def test_an_npz_file_can_hold_the_largest_index(tmp_path):
    write(tmp_path / "x.npz", [piece(2**64 - 1, 1)], SampleRun(count=1, start_index=2**64 - 1))
    with np.load(tmp_path / "x.npz") as npz:
        assert npz["indices"].tolist() == [2**64 - 1]


def test_an_abandoned_npz_file_leaves_nothing(tmp_path):
    writer = open_output(f"{tmp_path}/x.npz", SampleRun(count=2))
    writer.add(piece(0, 1))
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_an_npz_file_appears_once_it_is_complete(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"old")
    writer = open_output(f"{tmp_path}/x.npz", SampleRun(count=1))
    writer.add(piece(0, 1))
    assert (tmp_path / "x.npz").read_bytes() == b"old"
    writer.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


def test_a_large_npz_file_takes_no_more_memory_than_a_small_one(tmp_path):
    tracemalloc.start()
    chunks = (piece(start, 4096, labels=[0] * 4096) for start in range(0, 4096 * 64, 4096))
    write(tmp_path / "x.npz", chunks, SampleRun(count=4096 * 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x.npz").stat().st_size > 16 * 2**20
    assert peak < 4 * 2**20


# --- Grid -------------------------------------------------------------------------------------------------------------


def test_a_grid_shows_all_samples(tmp_path):
    write(tmp_path / "x.png", [piece(0, 4, labels=[7] * 4)], SampleRun(count=4))
    with Image.open(tmp_path / "x.png") as grid:
        assert grid.size == (168, 204)
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


def test_a_grid_has_class_names_above_its_images(tmp_path):
    write(tmp_path / "a.png", [piece(0, 1, labels=[0])], SampleRun(count=1, class_names=["cat"]))
    write(tmp_path / "b.png", [piece(0, 1, labels=[0])], SampleRun(count=1, class_names=["dog"]))
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


# --- Folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "names", "expected"),
    [
        (None, [], "00000007.png"),
        (3, [], "00000007_label3.png"),
        (0, ["0"], "00000007_label0.png"),
        (0, ["cat"], "00000007_label0_cat.png"),
        (0, ["../x"], "00000007_label0_x.png"),
        (0, ["<script>"], "00000007_label0_script.png"),
        (0, ["数"], "00000007_label0_数.png"),
        (0, ["हिन्दी"], "00000007_label0_हिन्दी.png"),
        (0, ["e\u0301t\u00e9"], "00000007_label0_\u00e9t\u00e9.png"),
        (0, ["a\0b/c\nd"], "00000007_label0_a-b-c-d.png"),
        (0, ["z" * 99], f"00000007_label0_{'z' * 32}.png"),
    ],
)
def test_a_file_name_has_index_and_a_safe_class_name(label, names, expected):
    assert f"{sample_file_name(7, label, names)}.png" == expected


def test_a_folder_has_one_image_per_sample_and_a_manifest(tmp_path):
    write(f"{tmp_path}/x/", [piece(3, 2, labels=[7, 8])], SampleRun(count=2, start_index=3))
    names = sorted(file.name for file in (tmp_path / "x").iterdir())
    assert names == ["00000003_label7.png", "00000004_label8.png", "manifest.json"]
    assert np.asarray(Image.open(tmp_path / "x" / names[0])).tolist() == [[3] * 8] * 8


def test_the_manifest_identifies_the_run(tmp_path):
    run = SampleRun(count=2, start_index=3, request={"parameters": {"truncation": 1.0}})
    write(f"{tmp_path}/x/", [piece(3, 2)], run)
    assert json.loads((tmp_path / "x" / "manifest.json").read_text()) == {
        "model": "digits:1.0@sha256:a",
        "seed": 5,
        "numerics": "cpu",
        "asked": {"parameters": {"truncation": 1.0}},
        "ranges": [[3, 5]],
    }


def test_the_same_run_can_be_continued_in_its_folder(tmp_path):
    write(f"{tmp_path}/x/", [piece(0, 2)], SampleRun(count=2, seed=5))
    write(f"{tmp_path}/x/", [piece(2, 2)], SampleRun(count=2, start_index=2, seed=5))
    assert json.loads((tmp_path / "x" / "manifest.json").read_text())["ranges"] == [[0, 2], [2, 4]]


def test_an_unfinished_run_is_not_in_the_manifest(tmp_path):
    writer = open_output(f"{tmp_path}/x/", SampleRun(count=2, seed=5))
    writer.add(piece(0, 1))
    writer.abandon()
    assert json.loads((tmp_path / "x" / "manifest.json").read_text())["ranges"] == []


@pytest.mark.parametrize("seed", [6, None], ids=["other seed", "no seed"])
def test_a_folder_of_another_seed_is_refused_at_once(tmp_path, seed):
    write(f"{tmp_path}/x/", [piece(0, 1)], SampleRun(count=1, seed=5))
    with pytest.raises(OutputError, match=r"another run .seed 5; give --seed 5 to continue it"):
        open_output(f"{tmp_path}/x/", SampleRun(count=1, seed=seed))


def test_a_folder_of_other_parameters_is_refused(tmp_path):
    write(f"{tmp_path}/x/", [piece(0, 1)], SampleRun(count=1, seed=5))
    writer = open_output(f"{tmp_path}/x/", SampleRun(count=1, seed=5, request={"parameters": {"truncation": 1.0}}))
    with pytest.raises(OutputError, match="another run"):
        writer.add(piece(0, 1))


@pytest.mark.parametrize("content", [None, "not json", "[]"], ids=["none", "broken", "a list"])
def test_a_folder_with_other_files_is_refused(tmp_path, content):
    (tmp_path / "holiday.jpg").touch()
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(OutputError, match="name another folder"):
        open_output(str(tmp_path), SampleRun(count=1))


@pytest.mark.parametrize("ranges", [7, [1], [[0, 1, 2]], [["a", "b"]]], ids=["number", "numbers", "triple", "text"])
def test_a_manifest_with_other_ranges_is_refused(tmp_path, ranges):
    (tmp_path / "manifest.json").write_text(json.dumps({"seed": 5, "ranges": ranges}))
    with pytest.raises(OutputError, match="is not a manifest; name another folder"):
        open_output(str(tmp_path), SampleRun(count=1, seed=5))


def test_free_space_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(free=63))
    with pytest.raises(OutputError, match="needs about 64 bytes; 63 are free"):
        open_output(f"{tmp_path}/x.npz", SampleRun(count=1, sample_bytes=64))


def test_class_names_cannot_leave_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    run = SampleRun(count=2, class_names=["../x", "<script>"])
    write(f"{tmp_path}/a/b/", [piece(0, 2, labels=[0, 1])], run)
    names = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert names == ["a/b/00000000_label0_x.png", "a/b/00000001_label1_script.png", "a/b/manifest.json"]


def test_a_picture_of_vectors_shows_where_they_lie(tmp_path):
    spec = SampleShape(dims=(2,), dtype="float32", value_range=(-1.0, 1.0), encoding="float32")
    points = np.full((3000, 2), 0.99, np.float32)
    chunk = dataclasses.replace(piece(0, 3000), shape_of_one=spec, samples=points)
    write(tmp_path / "x.png", [chunk], SampleRun(count=3000, channels=0, sample_bytes=8))
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels[:, : pixels.shape[1] // 2] == 255).sum() < (pixels[:, pixels.shape[1] // 2 :] == 255).sum()
