"""`fount pull` against a real server: what it refuses, and what goes wrong on the way."""

import os
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fount.export import table
from tests.contract.exports import (
    FORMATS,
    FOUNT,
    contents,
    data_of,
    fount,
    manifest,
    pull,
    running,
    ticket,
    wait_for_parts,
)
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


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_folder_of_another_plan_is_refused(gateway):
    name = ticket(gateway)
    pull()
    before = contents("out")
    result = fount("pull", name, "--out", "out", "--format", "npz")
    assert result.exit_code == 1
    assert "out holds another export (plan id " in result.stderr
    assert contents("out") == before


def test_a_folder_of_other_wishes_is_refused(gateway):
    pull()
    Path("plan.yaml").write_text("dataset: digits\nseed: 2\n")
    assert "holds an export of other wishes than plan.yaml has now" in pull().stderr


def test_another_format_in_the_same_folder_is_refused(gateway):
    pull()
    assert 'format "npz", where "folder" was asked for' in pull(format="folder").stderr


def test_a_folder_with_something_else_is_refused_before_anything_is_planned(gateway):
    Path("out").mkdir()
    Path("out", "thesis.tex").write_text("")
    assert "is not empty and holds no export" in pull().stderr
    assert gateway.given == 0


def test_a_wrong_plan_is_named_before_a_folder_is_made():
    Path("plan.yaml").write_text("dataset: digits\nsed: 1\n")
    assert 'did you mean "seed"?' in pull().stderr
    assert not Path("out").exists()


def test_a_ticket_that_is_none_is_told(gateway):
    Path("plan.ticket").write_bytes(b"nonsense")
    result = fount("pull", "plan.ticket", "--out", "out")
    assert result.exit_code == 1
    assert "ticket: has expired; plan again" in result.stderr


def test_a_ticket_file_that_is_not_there_is_told(gateway):
    assert "The ticket 'no.ticket' cannot be read" in fount("pull", "no.ticket", "--out", "out").stderr


def test_two_exports_into_one_folder_are_refused(gateway):
    gateway.hold_from = 10
    with running("pull", "plan.yaml", "--out", "out", "--format", "npz") as process:
        wait_for_parts("out", 1, process)
        assert "is being written by another `fount pull`" in pull().stderr


def test_a_missing_package_names_the_extra(gateway, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    result = pull(format="parquet")
    assert result.exit_code == 1
    assert "needs the extra `parquet`: pip install 'fount[parquet]'" in result.stderr


# --- What goes wrong on the way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_told_and_the_next_run_goes_on(gateway, format):
    name = ticket(gateway)
    fount("pull", name, "--out", "whole", "--format", format)
    limit = max(len(data) for data in data_of("whole").values() if data) // 2
    limit = max(limit, 60) if format == "folder" else limit

    def fill_the_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    with running("pull", name, "--out", "out", "--format", format, preexec_fn=fill_the_disk) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "cannot be written: File too large" in errors
    assert not Path("out", "manifest.json").exists()
    assert fount("pull", name, "--out", "out", "--format", format).exit_code == 0
    assert contents("out") == contents("whole")


def test_a_folder_that_cannot_be_written_is_told(gateway):
    assert "there is no folder" in pull(out="nowhere/out").stderr


def test_ctrl_c_ends_with_130_and_the_next_run_goes_on(gateway):
    gateway.hold_from = 10
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a suite in the background does not
    with running("pull", "plan.yaml", "--out", "out", "--format", "npz", preexec_fn=heeding) as process:
        wait_for_parts("out", 1, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "Stopped.")
    gateway.released.set()
    assert pull().exit_code == 0
    assert (manifest()["written"], gateway.given) == (40, 1)


def test_a_server_that_goes_away_leaves_what_is_finished(gateway):
    gateway.hold_from = 10
    name = ticket(gateway)
    with serving_plans(gateway) as other:
        process = subprocess.Popen(
            [*FOUNT, "pull", name, "--out", "out", "--format", "npz", "--server", other, "--timeout", "1"],
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_parts("out", 1, process)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "What is finished stays: run the same command again to go on."
    assert os.listdir("out/data")
