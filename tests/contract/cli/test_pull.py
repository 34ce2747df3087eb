"""`fount pull` against a real server: the files of an export, and resuming."""

import hashlib
import json
import signal
from pathlib import Path

import pytest

from tests.contract.commands import fount
from tests.contract.exports import (
    FORMATS,
    contents,
    data_of,
    manifest,
    pull,
    running,
    ticket,
    use_small_parts,
    wait_for_parts,
)
from tests.contract.fake_gateway import DIGEST, NUMERICS


@pytest.fixture(autouse=True)
def a_plan_file_and_small_parts(tmp_path, monkeypatch):
    use_small_parts(monkeypatch)
    (tmp_path / "plan.yaml").write_text("dataset: digits\n")


# --- Files ------------------------------------------------------------------------------------------------------------


def test_every_row_is_written_once(gateway):
    result = pull()
    assert result.exit_code == 0, result.output
    assert sorted(data_of("out")) == [f"data/train-{n:05d}-of-00004.npz" for n in range(4)]
    assert (manifest()["rows"], manifest()["written"], manifest()["rejected"]) == (40, 40, 0)


def test_the_manifest_describes_the_rows(gateway):
    pull("--provenance", "full")
    message = manifest()
    assert message["plan_id"] in gateway.plans
    assert (message["dataset"], message["dataset_digest"], message["image_shape"]) == ("digits", DIGEST, [4, 4, 1])
    assert message["models"] == [{"role": "generator", "model": f"digits-cvae:1.0@{DIGEST}", "numerics": NUMERICS}]
    assert message["classes"] == ["zero", "one/two", "../x"]
    assert message["by_class"] == {"zero": 14, "one/two": 13, "../x": 13}
    assert message["by_source"] == {"real": 10, "resampled": 10, "transformed": 10, "synthesised": 10}
    assert message["request"]["seed"] == "1001"


@pytest.mark.parametrize("format", FORMATS)
def test_the_manifest_has_the_digest_of_every_file(gateway, format):
    pull(format=format)
    for part in manifest()["parts"] + manifest()["files"]:
        data = Path("out", part["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])


def test_rejected_rows_are_omitted_and_counted(gateway):
    gateway.rejected = frozenset({3, 17})
    result = pull()
    assert "Rejected    2 rows for which no sample was accepted; they are omitted" in result.stdout
    assert (manifest()["written"], manifest()["rejected"]) == (38, 2)


def test_the_result_can_be_json(gateway):
    message = json.loads(pull("--json").stdout)
    assert (message["written"], message["made"], message["made_again"], message["out"]) == (40, 4, 0, "out")


@pytest.mark.parametrize("format", FORMATS)
def test_files_do_not_depend_on_the_number_of_jobs(gateway, format):
    gateway.groups = ("a", "b")
    name = ticket()
    for jobs in ("1", "5"):
        fount("pull", name, "--out", jobs, "--format", format, "--jobs", jobs, "--provenance", "full")
    assert contents("1") == contents("5")


def test_files_stay_within_shards(gateway):
    pull("--shards", "5")
    assert [(part["first"], part["end"]) for part in manifest()["parts"]] == [(n, n + 8) for n in range(0, 40, 8)]
    assert {request.shards for request in gateway.pulls} == {0, 5}


def test_provenance_can_be_omitted(gateway):
    pull("--provenance", "none")
    assert manifest()["by_source"] == {}


def test_rows_out_of_bag_have_their_own_split(gateway):
    pull("--out-of-bag")
    assert all(name.startswith("data/out_of_bag-") for name in data_of("out"))
    assert {request.part for request in gateway.pulls} == {2}


def test_a_plan_without_rows_makes_an_export_without_parts(gateway):
    gateway.rows = 0
    assert pull().exit_code == 0
    assert manifest()["parts"] == []


def test_a_broken_stream_is_resumed(gateway):
    gateway.break_at = 10
    assert pull().exit_code == 0
    assert manifest()["written"] == 40


# --- Resuming ---------------------------------------------------------------------------------------------------------


def test_a_complete_export_is_verified_and_unchanged(gateway):
    pull()
    before, requests = contents("out"), len(gateway.pulls)
    result = pull()
    assert result.stdout.startswith("Already complete: 40 rows in 4 files, all digests verified")
    assert contents("out") == before
    assert len(gateway.pulls) == requests + 1  # the description of the plan, and no rows


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("damage", ["truncated", "changed", "deleted"])
def test_a_damaged_file_is_replaced(gateway, format, damage):
    pull(format=format)
    before = contents("out")
    path = Path("out", next(name for name in sorted(before) if name.startswith("data/") and not name.endswith(".csv")))
    data = path.read_bytes()
    path.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    if damage == "deleted":
        path.unlink()
    assert "Replaced    1 file that had been changed or truncated" in pull(format=format).stdout
    assert contents("out") == before


@pytest.mark.parametrize("name", ["rows.csv", "manifest.json"])
@pytest.mark.parametrize("damage", ["{}", "file,sha256\n", None], ids=["object", "lines", "deleted"])
def test_a_damaged_last_file_is_replaced(gateway, name, damage):
    pull(format="folder")
    before = contents("out")
    Path("out", name).unlink()
    if damage is not None:
        Path("out", name).write_text(damage)
    assert pull(format="folder").exit_code == 0
    assert contents("out") == before


def test_an_export_by_ticket_has_no_request_of_a_refused_plan_file(gateway):
    arguments = ("pull", ticket(), "--out", "out", "--format", "npz")
    fount(*arguments)
    before = contents("out")
    pull()
    Path("out", "manifest.json").unlink()
    assert fount(*arguments).exit_code == 0
    assert contents("out") == before


@pytest.mark.parametrize("format", FORMATS)
def test_a_killed_export_is_resumed(gateway, format):
    name = ticket()
    fount("pull", name, "--out", "whole", "--format", format)
    gateway.hold_from = 10  # only the first part arrives
    arguments = ("pull", name, "--out", "out", "--format", format, "--jobs", "2")
    with running(*arguments) as process:
        wait_for_parts("out", 1, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not Path("out", "manifest.json").exists()
    gateway.released.set()
    made = json.loads(fount(*arguments, "--json").stdout)
    assert made["made"] == 3
    assert contents("out") == contents("whole")


def test_a_half_written_part_is_deleted(gateway):
    pull()
    Path("out", "manifest.json").unlink()
    Path("out", ".fount", "staging").mkdir()
    Path("out", ".fount", "staging", "train.npz.part").write_bytes(b"half")
    assert pull().exit_code == 0
    assert not Path("out", ".fount", "staging").exists()
    assert [name for name in contents("out") if name.endswith(".part")] == []


def test_a_plan_without_a_seed_is_planned_once(gateway):
    pull()
    Path("out", "manifest.json").unlink()
    Path("out", "data", "train-00000-of-00004.npz").unlink()
    pull()
    assert gateway.given == 1


def test_a_plan_with_an_expired_ticket_is_planned_again(gateway):
    pull()
    before = contents("out")
    Path("out", "data", "train-00000-of-00004.npz").unlink()
    gateway.void_tickets.add(next(iter(gateway.plans.values())).ticket)
    assert pull().exit_code == 0
    assert gateway.given == 2
    assert contents("out") == before


def test_an_expired_ticket_whose_plan_has_changed_is_refused(gateway):
    pull()
    gateway.void_tickets.add(next(iter(gateway.plans.values())).ticket)
    gateway.other_ids = True
    result = pull()
    assert result.exit_code == 1
    assert "whose ticket is no longer accepted, and planning it again gives" in result.stderr
