"""A model's code can write anything to the pipe of its check: it becomes a finding, in bounded memory and time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result

from fount.cli.main import main
from handlers.checks.process import CheckRequest
from tests.handlers.planted import plant

FOREIGN = "the model's code wrote something else to the pipe of the check"
WRITE = "import os, sys; pipe = int(sys.argv[2]);"
START = b'{"order": ["output", "golden"]}\n{"begin": "output"}\n'
BEGIN = f"{WRITE} import time; os.write(pipe, {START!r})\n"
ENDLESS = f"{WRITE} data = b'x' * 65536\n        while True: os.write(pipe, data)"
FINDING = {"check": "output", "state": "passed", "seen": "", "change": "", "blocks": False, "numbers": {}}


def check(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["check", f"{folder.parent}/{folder.name}", *options])


def write(text: object) -> str:
    line = text if isinstance(text, bytes) else json.dumps(text).encode()
    return f"{WRITE} os.write(pipe, {line + bytes([10])!r}); time.sleep(60)"


CODE = {
    "a number": write(5),
    "an empty line": write(b""),
    "an empty object": write({}),
    "an unknown key": write({"begin": "rows", "other": 1}),
    "deep nesting": f"{WRITE} os.write(pipe, b'[' * 60000 + bytes([10])); time.sleep(60)",
    "nesting that a parser accepts": f"{WRITE} os.write(pipe, b'[' * 900 + b']' * 900 + bytes([10])); time.sleep(60)",
    "invalid UTF-8": write(b'{"begin": "\xff"}'),
    "a lone surrogate": write(b'{"begin": "\\ud800"}'),
    "a check of a wrong type": write({"begin": 5}),
    "an unknown check": write({"begin": "nonsense"}),
    "a check out of order": write({"finding": FINDING | {"check": "golden"}}),
    "an incomplete finding": write({"finding": {"check": "output"}}),
    "a finding of a wrong state": write({"finding": FINDING | {"state": "fine"}}),
    "NaN": write(b'{"finding": ' + json.dumps(FINDING | {"numbers": {"x": float("nan")}}).encode() + b"}"),
    "another order": write({"order": ["output"]}),
    "an early end": write({"end": True}),
    "the same check without end": (
        f'{WRITE}\n        while True: os.write(pipe, b\'{{"begin": "output"}}\' + bytes([10]))'
    ),
}


@pytest.mark.parametrize("code", CODE.values(), ids=CODE.keys())
def test_what_is_no_event_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def start(request: CheckRequest, pipe: int, folder: Path, printed: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", BEGIN + code.replace("\n        ", "\n"), "", str(pipe)]
        return subprocess.Popen(command, pass_fds=(pipe,), stdout=printed, stderr=printed)

    monkeypatch.setattr("handlers.checks.process._start", start)  # a child without torch, which starts at once
    result = check(plant(tmp_path / "planted"), "--time-limit", "20")
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert f"output        {FOREIGN}" in result.stdout
    assert "golden        needs output" in result.stdout


def test_half_a_line_of_a_model_is_a_finding(tmp_path: Path) -> None:
    code = f"{WRITE} os.write(pipe, b'half')"
    assert f"output        {FOREIGN}" in check(plant(tmp_path / "planted", before=code)).stdout


def test_a_line_without_end_is_a_finding_in_bounded_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = check(plant(tmp_path / "planted", before=ENDLESS), "--time-limit", "20")
    assert FOREIGN in result.stdout
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


@pytest.mark.slow
def test_a_closed_pipe_is_a_finding(tmp_path: Path) -> None:
    code = f"{WRITE} os.close(pipe); time.sleep(60)"
    assert "the model's code closed the pipe of the check" in check(plant(tmp_path / "planted", before=code)).stdout


def test_a_process_that_a_nameless_signal_ended_is_a_finding(tmp_path: Path) -> None:
    code = "import os; os.kill(os.getpid(), 40)"
    assert "the process was killed (signal 40)" in check(plant(tmp_path / "planted", before=code)).stdout


def test_the_end_of_a_long_output_is_reported_in_bounded_memory(tmp_path: Path) -> None:
    code = "import os; [os.write(1, b'x' * 10**6) for _ in range(150)]; os.write(1, b' farewell'); os._exit(1)"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "xx farewell" in check(plant(tmp_path / "planted", before=code)).stdout
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
