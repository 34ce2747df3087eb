"""Modules in the working folder, or in PYTHONPATH, that have the names of ours or of the standard library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fount.environment import ROOT, python_command
from service.evaluation.jobs.hosting import RunnerProcesses
from tests.waiting import until

NAMES = ("random", "service", "handlers", "torch", "numpy", "grpc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with modules that cannot be imported."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported {name}.py of the user')\n")
    return tmp_path


def run(command: tuple[str, ...], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


async def test_a_runner_imports_nothing_of_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    runners = RunnerProcesses(1, ("--help",), {})  # it ends at once, after its imports
    await runners.start()
    try:
        await until(runners.why_waiting, timeout_s=30)
    finally:
        await runners.close()
    assert runners.why_waiting() == "no runner works: the last one ended with status 0; see the gateway's log"


@pytest.mark.parametrize("command", ["runner", "serve", "pack", "models"])
def test_a_command_run_as_a_module_imports_nothing_of_the_working_folder(folder: Path, command: str) -> None:
    done = run((sys.executable, "-m", "fount", command, "--help"), folder)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["runner", "pack"])
def test_a_module_in_pythonpath_replaces_no_package_of_ours(folder: Path, command: str) -> None:
    for name in set(NAMES) - {"service", "handlers"}:
        (folder / f"{name}.py").unlink()
    done = run(python_command("-m", "fount", command, "--help"), ROOT, PYTHONPATH=str(folder))
    assert (done.returncode, done.stderr) == (0, "")
