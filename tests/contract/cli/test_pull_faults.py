"""`fount pull` against a real server: refusals, and faults during an export."""

import os
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.contract.commands import fount
from tests.contract.exports import (
    FORMATS,
    FOUNT,
    contents,
    data_of,
    manifest,
    pull,
    running,
    ticket,
    use_small_parts,
    wait_for_parts,
)
from tests.contract.fake_plans import serving_plans


@pytest.fixture(autouse=True)
def a_plan_file_and_small_parts(tmp_path, monkeypatch):
    use_small_parts(monkeypatch)
    (tmp_path / "plan.yaml").write_text("dataset: digits\n")


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_another_plan_is_refused(gateway):
    name = ticket()
    pull()
    before = contents("out")
    result = fount("pull", name, "--out", "out", "--format", "npz")
    assert result.exit_code == 1
    assert "out holds another export (plan id " in result.stderr
    assert contents("out") == before


def test_a_folder_of_another_plan_file_is_refused(gateway):
    pull()
    Path("plan.yaml").write_text("dataset: digits\nseed: 2\n")
    assert "holds an export of another plan file than plan.yaml is now" in pull().stderr


def test_another_format_in_the_same_folder_is_refused(gateway):
    pull()
    assert 'format "npz", requested is "folder"' in pull(format="folder").stderr


def test_a_folder_with_something_else_is_refused_before_anything_is_planned(gateway):
    Path("out").mkdir()
    Path("out", "thesis.tex").write_text("")
    assert "is not empty and holds no export" in pull().stderr
    assert gateway.given == 0


def test_a_wrong_plan_file_is_reported_before_a_folder_is_created():
    Path("plan.yaml").write_text("dataset: digits\nsed: 1\n")
    assert "did you mean 'seed'?" in pull().stderr
    assert not Path("out").exists()


def test_an_invalid_ticket_is_reported(gateway):
    Path("plan.ticket").write_bytes(b"nonsense")
    result = fount("pull", "plan.ticket", "--out", "out")
    assert result.exit_code == 1
    assert "ticket: has expired; plan again" in result.stderr


def test_an_absent_ticket_file_is_reported(gateway):
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


# --- Faults during an export ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_reported_and_the_next_run_resumes(gateway, format):
    name = ticket()
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


def test_an_unwritable_folder_is_reported(gateway):
    assert "there is no folder" in pull(out="nowhere/out").stderr


def test_ctrl_c_exits_with_130_and_the_next_run_resumes(gateway):
    gateway.hold_from = 10
    default_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a suite in the background ignores
    with running("pull", "plan.yaml", "--out", "out", "--format", "npz", preexec_fn=default_sigint) as process:
        wait_for_parts("out", 1, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "Stopped.")
    gateway.released.set()
    assert pull().exit_code == 0
    assert (manifest()["written"], gateway.given) == (40, 1)


def test_finished_files_remain_when_the_server_stops(gateway):
    gateway.hold_from = 10
    name = ticket()
    with serving_plans(gateway) as other:
        process = subprocess.Popen(
            [*FOUNT, "pull", name, "--out", "out", "--format", "npz", "--server", other, "--timeout", "1"],
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_parts("out", 1, process)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "Finished files remain: run the same command again to resume."
    assert os.listdir("out/data")
