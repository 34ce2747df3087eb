"""The README's commands work as they are written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fount import Client
from tests.e2e.augmenting import Augmented
from tests.e2e.processes import FOUNT, REPOSITORY, Served, environment, run_fount, served_by

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(title: str) -> list[list[str]]:
    """What follows `fount` in the commands of a section."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("fount ")]


TRIED = commands("Try it")


def test_there_are_commands_to_try() -> None:
    assert len(TRIED) >= 5


@pytest.mark.parametrize("command", TRIED, ids=" ".join)
def test_a_command_of_the_readme_works(served: Served, tmp_path: Path, command: list[str]) -> None:
    ended = run_fount(*command, home=tmp_path, extra={"FOUNT_SERVER": served.server})
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_generator_of_one_s_own_is_served_by_the_commands_of_the_readme(tmp_path: Path) -> None:
    *before, serve = commands("A generator of your own")
    for command in before:
        result = run_fount(*command, home=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    ports = {"FOUNT_SERVE_PORT": "0", "FOUNT_SERVE_HTTP_PORT": "0"}
    with served_by([FOUNT, *serve], tmp_path, ports) as own, Client(own.server) as client:
        assert client.sample("my-gan", count=2, seed=1).shape == (2, 32, 32, 3)


def test_a_data_set_is_augmented_by_the_commands_of_the_readme(augmented: Augmented, tmp_path: Path) -> None:
    (specification,) = blocks("yaml")
    (tmp_path / "tripled.yaml").write_text(specification)
    for command in commands("Augment a data set"):
        result = run_fount(*command, home=tmp_path, extra={"FOUNT_SERVER": augmented.server})
        assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "tripled" / "manifest.json").is_file()
    assert (tmp_path / "variants.png").is_file()


def test_a_generator_is_evaluated_by_the_commands_of_the_readme(served: Served, tmp_path: Path) -> None:
    asked, listed = commands("Evaluate a generator")
    result = run_fount(*asked, home=tmp_path, extra={"FOUNT_SERVER": served.server}, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed  copy_rate.upper95 < 0.05" in result.stdout
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    result = run_fount(*listed, home=tmp_path, extra={"FOUNT_SERVER": served.server})
    assert "gates passed" in result.stdout, result.stderr


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_of_the_readme_works(served: Served, tmp_path: Path, number: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]], env=environment(tmp_path, {"FOUNT_SERVER": served.server}),
        cwd=tmp_path, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "(16, 8, 8, 1) uint8" in result.stdout
