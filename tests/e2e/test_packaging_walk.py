"""The ten minutes of docs/packaging.md, typed as they stand there, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.processes import REPOSITORY, Served, environment, served_by

PAGE = (REPOSITORY / "docs/packaging.md").read_text()
WALK = PAGE.split("## In ten minutes")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", WALK, re.DOTALL)
FILES = re.findall(r"(?:Save this as|Replace) `([\w./-]+\.py)`", WALK)
SERVE = "fount serve --model-store model_store"


@dataclass
class Walked:
    """The folder after the walk, with the server still up."""

    folder: Path
    served: Served
    result: dict[str, str]
    variables: dict[str, str]

    def type(self, command: str) -> str:
        return run(self.folder, command, self.variables)


def run(folder: Path, command: str, variables: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=variables, text=True, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def lines_of(block: str) -> list[str]:
    """Commands of a block, those over several lines as one."""
    return block.replace("\\\n", " ").strip().splitlines()


def walk(folder: Path, variables: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Do what comes before the server; return the commands' outputs, and the remaining commands."""
    files, result = iter(FILES), dict[str, str]()
    commands = list[str]()
    for language, block in BLOCKS:
        if language == "python":
            for command in commands:
                result[command] = run(folder, command, variables)
            commands = []
            (folder / next(files)).write_text(block)
        else:
            commands += lines_of(block)
    before = commands.index(SERVE)
    for command in commands[:before]:
        result[command] = run(folder, command, variables)
    return result, commands[before + 1 :]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    folder = tmp_path_factory.mktemp("walk")
    path = f"{Path(sys.executable).parent}:{environment(folder)['PATH']}"
    variables = environment(folder, {"PATH": path, "OMP_NUM_THREADS": "1"})
    result, after = walk(folder, variables)
    ports = {"FOUNT_SERVE_PORT": "0", "FOUNT_SERVE_HTTP_PORT": "0", "PATH": path}
    with served_by(shlex.split(SERVE), folder, ports) as served:
        result = Walked(folder, served, result, variables | {"FOUNT_SERVER": served.server})
        for command in after:
            result[command] = result.type(command)
        yield result


pytestmark = pytest.mark.slow


def test_every_check_passes(walked: Walked) -> None:
    result = walked.result["fount check shapes-gan"]
    assert "✗" not in result
    assert "16 pictures of example.safetensors up to" in result


def test_the_card_that_is_shown_is_the_one_that_was_filled_in(walked: Walked) -> None:
    result = walked.result["fount model shapes-gan"]
    assert "Circles, squares and triangles of any colour on white, drawn by a DCGAN." in result
    assert "32" in result
    assert "UNTRAINED" not in result


def test_the_picture_holds_sixteen_colour_tiles(walked: Walked) -> None:
    with Image.open(walked.folder / "shapes.png") as picture:
        assert picture.mode == "RGB"
        pixels = np.asarray(picture).astype(int)
    is_coloured = np.ptp(pixels, axis=2) > 60
    assert is_coloured.mean() > 0.02


def test_a_tile_is_32_by_32_in_rgb(walked: Walked) -> None:
    walked.type("fount sample shapes-gan --count 16 --seed 1 --out shapes.npz")
    with np.load(walked.folder / "shapes.npz", allow_pickle=False) as stored:
        assert (stored["samples"].shape, stored["samples"].dtype) == ((16, 32, 32, 3), np.uint8)


def test_sampling_again_gives_the_same_bytes(walked: Walked) -> None:
    before = (walked.folder / "shapes.png").read_bytes()
    walked.type("fount sample shapes-gan --count 16 --seed 1 --out again.png")
    assert (walked.folder / "again.png").read_bytes() == before


def test_the_class_that_is_pasted_is_the_one_that_was_trained() -> None:
    trained, pasted = (block[block.index("class Generator") :] for language, block in BLOCKS if language == "python")
    assert trained.startswith(pasted.rstrip())
