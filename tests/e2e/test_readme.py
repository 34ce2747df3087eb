"""What the README tells a newcomer to type works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import REPOSITORY, Served, environment, run_fount

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("fount ")]


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(served: Served, tmp_path: Path, command: str) -> None:
    ended = run_fount(*shlex.split(command)[1:], home=tmp_path, extra={"FOUNT_SERVER": served.server})
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_of_the_readme_works(served: Served, tmp_path: Path, number: int) -> None:
    told = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]], env=environment(tmp_path, {"FOUNT_SERVER": served.server}),
        cwd=tmp_path, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "(16, 8, 8, 1) uint8" in told.stdout
