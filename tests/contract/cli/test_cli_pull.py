"""`fount pull` against a real server: what is written, and what a second run does."""

import hashlib
import json
import signal
from pathlib import Path

import pytest

from fount.export import table
from tests.contract.exports import FORMATS, contents, data_of, fount, manifest, pull, running, ticket, wait_for_parts
from tests.contract.fake_gateway import DIGEST, NUMERICS
from tests.contract.fake_plans import FakePlans, serving_plans


@pytest.fixture(autouse=True)
def in_a_folder_with_a_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(table, "_MOST_ROWS", 10)
    (tmp_path / "plan.yaml").write_text("dataset: digits\n")


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakePlans()
    with serving_plans(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway


# --- What is written --------------------------------------------------------------------------------------------------


def test_every_row_is_written_once(gateway):
    result = pull()
    assert result.exit_code == 0, result.output
    assert sorted(data_of("out")) == [f"data/train-{n:05d}-of-00004.npz" for n in range(4)]
    assert (manifest()["rows"], manifest()["written"], manifest()["rejected"]) == (40, 40, 0)


def test_the_manifest_says_what_the_rows_are_of(gateway):
    pull("--provenance", "full")
    told = manifest()
    assert told["plan_id"] in gateway.plans
    assert (told["dataset"], told["dataset_digest"], told["image_shape"]) == ("digits", DIGEST, [4, 4, 1])
    assert told["models"] == [{"role": "generator", "model": f"digits-cvae:1.0@{DIGEST}", "numerics": NUMERICS}]
    assert told["classes"] == ["zero", "one/two", "../x"]
    assert told["by_class"] == {"zero": 14, "one/two": 13, "../x": 13}
    assert told["by_source"] == {"real": 10, "resampled": 10, "transformed": 10, "synthesised": 10}
    assert told["request"]["seed"] == "1001"


@pytest.mark.parametrize("format", FORMATS)
def test_the_manifest_has_the_digest_of_every_file(gateway, format):
    pull(format=format)
    for part in manifest()["parts"] + manifest()["files"]:
        data = Path("out", part["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])


def test_rejected_slots_are_left_out_and_counted(gateway):
    gateway.rejected = frozenset({3, 17})
    result = pull()
    assert "Rejected    2 slots that no sample was accepted for; they are left out" in result.stdout
    assert (manifest()["written"], manifest()["rejected"]) == (38, 2)


def test_a_program_can_read_the_outcome(gateway):
    told = json.loads(pull("--json").stdout)
    assert (told["written"], told["made"], told["made_again"], told["out"]) == (40, 4, 0, "out")


@pytest.mark.parametrize("format", FORMATS)
def test_files_are_the_same_however_many_jobs_there_are(gateway, format):
    gateway.groups = ("a", "b")
    name = ticket(gateway)
    for jobs in ("1", "5"):
        fount("pull", name, "--out", jobs, "--format", format, "--jobs", jobs, "--provenance", "full")
    assert contents("1") == contents("5")


def test_shards_cut_the_files(gateway):
    pull("--shards", "5")
    assert [(part["first"], part["end"]) for part in manifest()["parts"]] == [(n, n + 8) for n in range(0, 40, 8)]
    assert {request.shards for request in gateway.pulls} == {0, 5}


def test_no_more_is_told_than_was_asked_for(gateway):
    pull("--provenance", "none")
    assert manifest()["by_source"] == {}


def test_rows_out_of_bag_have_a_split_of_their_own(gateway):
    pull("--out-of-bag")
    assert all(name.startswith("data/out_of_bag-") for name in data_of("out"))
    assert {request.part for request in gateway.pulls} == {2}


def test_a_plan_without_rows_makes_an_export_without_parts(gateway):
    gateway.rows = 0
    assert pull().exit_code == 0
    assert manifest()["parts"] == []


def test_a_broken_stream_goes_on(gateway):
    gateway.break_at = 10
    assert pull().exit_code == 0
    assert manifest()["written"] == 40


# --- Again ------------------------------------------------------------------------------------------------------------


def test_a_whole_export_is_checked_and_left_alone(gateway):
    pull()
    before, asked = contents("out"), len(gateway.pulls)
    result = pull()
    assert result.stdout.startswith("Already whole: 40 rows in 4 files, every digest as it was written")
    assert contents("out") == before
    assert len(gateway.pulls) == asked + 1  # what the plan is, and no rows


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_a_file_that_was_harmed_is_made_again(gateway, format, harm):
    pull(format=format)
    before = contents("out")
    path = Path("out", next(name for name in sorted(before) if name.startswith("data/")))
    data = path.read_bytes()
    path.write_bytes(data[:-1] if harm == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    if harm == "gone":
        path.unlink()
    assert "Made again  1 file that had been changed or cut off" in pull(format=format).stdout
    assert contents("out") == before


@pytest.mark.parametrize("name", ["rows.csv", "manifest.json"])
@pytest.mark.parametrize("harm", ["{}", "file,sha256\n", None], ids=["object", "lines", "gone"])
def test_a_last_file_that_was_harmed_is_made_again(gateway, name, harm):
    pull(format="folder")
    before = contents("out")
    Path("out", name).unlink()
    if harm is not None:
        Path("out", name).write_text(harm)
    assert pull(format="folder").exit_code == 0
    assert contents("out") == before


def test_an_export_by_ticket_does_not_tell_wishes_it_was_refused_for(gateway):
    arguments = ("pull", ticket(gateway), "--out", "out", "--format", "npz")
    fount(*arguments)
    before = contents("out")
    pull()
    Path("out", "manifest.json").unlink()
    assert fount(*arguments).exit_code == 0
    assert contents("out") == before


@pytest.mark.parametrize("format", FORMATS)
def test_a_killed_export_goes_on_where_it_was(gateway, format):
    name = ticket(gateway)
    fount("pull", name, "--out", "whole", "--format", format)
    gateway.hold_from = 10  # the first part is all that comes
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


def test_a_part_half_written_is_thrown_away(gateway):
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


def test_an_expired_ticket_is_planned_again(gateway):
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
    assert "whose ticket is no longer taken, and planning it again gives" in result.stderr
