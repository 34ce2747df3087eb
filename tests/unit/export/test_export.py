"""Parts of an export: PNG encoding, partition, class folders, journal and folder."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from fount.errors import OutputError
from fount.export.export_folder import ExportFolder, Journal, PartRecord
from fount.export.formats import class_folder_names, deflated_pngs, stored_pngs
from fount.export.parts import group_for_streams, rows_per_part, split_into_parts

IDENTITY = {"plan_id": "p1", "format": "npz"}


def some_images(shape, count=3):
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


def record(part=0):
    return PartRecord(
        part=part, first=0, end=4, file="f", bytes=1, sha256="00", rows=4, rejected=0, by_class={"a": 4}, by_source={}
    )


# --- PNG --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [stored_pngs, deflated_pngs])
@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 2), (28, 28, 3), (6, 4, 4), (200, 350, 1)], ids=str)
def test_an_encoded_image_is_decoded_unchanged(encode, shape):
    images = some_images(shape)
    for file, image in zip(encode(images), images, strict=True):
        with Image.open(io.BytesIO(bytes(file))) as read:
            read.verify()  # checksums
        with Image.open(io.BytesIO(bytes(file))) as read:
            assert (np.asarray(read).reshape(shape) == image).all()


@pytest.mark.parametrize("encode", [stored_pngs, deflated_pngs])
def test_no_images_make_no_files(encode):
    assert len(encode(some_images((8, 8, 1), count=0))) == 0


# --- Partition --------------------------------------------------------------------------------------------------------


def test_parts_stay_within_shards_and_cover_every_row_once():
    parts = split_into_parts(25, 2, 10)
    assert [(part.shard, part.first, part.end) for part in parts] == [(0, 0, 10), (0, 10, 12), (1, 12, 22), (1, 22, 25)]
    assert [part.number for part in parts] == [0, 1, 2, 3]


def test_more_shards_than_rows_leave_shards_without_parts():
    assert [(part.first, part.end) for part in split_into_parts(2, 5, 10)] == [(0, 1), (1, 2)]


def test_no_rows_make_no_parts():
    assert split_into_parts(0, 4, 10) == []


def test_large_images_make_parts_of_fewer_rows():
    assert (rows_per_part((28, 28, 1)), rows_per_part((256, 256, 3)), rows_per_part((4096, 4096, 4))) == (
        10_000,
        341,
        1,
    )


def test_a_group_ends_at_a_gap_and_at_a_shard():
    parts = split_into_parts(60, 2, 10)
    groups = group_for_streams([part for part in parts if part.number != 1], jobs=1)
    assert [[part.number for part in group] for group in groups] == [[0], [2], [3, 4], [5]]


# --- Class folders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        pytest.param(["0", "7"], ["0", "7"], id="plain"),
        pytest.param(["../x", "a/b"], ["x_0", "a-b_1"], id="paths"),
        pytest.param(["a", "A"], ["a", "A_1"], id="equal without case"),
        pytest.param(["", "///"], ["class_0", "class_1"], id="nothing safe"),
        pytest.param(["零", "Ünal", "Ёж", "one two"], ["零", "Ünal", "Ёж", "one two"], id="any script"),
        pytest.param(["e\u0301t\u00e9"], ["\u00e9t\u00e9"], id="composed"),
        pytest.param(["ÜNAL", "ünal"], ["ÜNAL", "ünal_1"], id="equal without case, beyond ASCII"),
        pytest.param(["NUL", "com1.x", "readme", ".a"], ["NUL_0", "com1.x_1", "readme_2", "a_3"], id="reserved"),
        pytest.param(["a.", "b ", "c\nd", "e<f>"], ["a_0", "b_1", "c-d_2", "e-f-_3"], id="refused somewhere"),
        pytest.param(["零" * 100], ["零" * 66 + "_0"], id="too long"),
        pytest.param(["a/b", "a-b_0", "..."], ["a-b_0", "a-b_0_1", "class_2"], id="taken"),
    ],
)
def test_a_class_folder_has_a_safe_and_unique_name(classes, folders):
    assert class_folder_names(classes) == folders


# --- The journal ------------------------------------------------------------------------------------------------------


def test_a_journal_is_read_back(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.add(record(0))
    journal.add(record(1))
    assert Journal(tmp_path / "j").records == {0: record(0), 1: record(1)}


@pytest.mark.parametrize(
    "torn", [b'{"part": 1, "fir', b'{"part": 1}\n', b"\0\0\0\0"], ids=["short", "other keys", "zeros"]
)
def test_a_torn_line_is_dropped_and_overwritten(tmp_path, torn):
    path = tmp_path / "j"
    Journal(path).add(record(0))
    path.write_bytes(path.read_bytes() + torn)
    journal = Journal(path)
    assert list(journal.records) == [0]
    journal.add(record(1))
    assert list(Journal(path).records) == [0, 1]


def test_a_part_made_again_refolders_its_line(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.add(record())
    journal.add(record())
    assert list(Journal(tmp_path / "j").records) == [0]


# --- The folder -------------------------------------------------------------------------------------------------------


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match="is not empty and holds no export; name another folder"):
        ExportFolder(tmp_path)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file"):
        ExportFolder(tmp_path / "x")


def test_a_folder_without_a_parent_is_refused(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        ExportFolder(tmp_path / "a" / "b")


def test_two_exports_cannot_write_at_once(tmp_path):
    folder = ExportFolder(tmp_path)
    with folder.locked(), pytest.raises(OutputError, match="being written by another"), folder.locked():
        pass


def test_half_written_files_are_deleted(tmp_path):
    folder = ExportFolder(tmp_path)
    folder.staging.mkdir(parents=True)
    (folder.staging / "data.parquet.part").write_bytes(b"half")
    with folder.locked():
        assert list(folder.staging.iterdir()) == []


def test_the_same_export_can_claim_its_folder_again(tmp_path):
    folder = ExportFolder(tmp_path)
    with folder.locked():
        folder.claim(IDENTITY)
        folder.claim(IDENTITY)


def test_another_export_is_refused_with_the_difference(tmp_path):
    folder = ExportFolder(tmp_path)
    with folder.locked():
        folder.claim(IDENTITY)
        with pytest.raises(OutputError, match=r'another export \(plan id "p1", requested is "p2"\)'):
            folder.claim({**IDENTITY, "plan_id": "p2"})


def test_an_invalid_manifest_is_ignored(tmp_path):
    (tmp_path / ".fount").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps([]))
    assert ExportFolder(tmp_path).manifest() is None
