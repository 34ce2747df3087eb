"""The two tutorials of docs/packaging.md, typed as they stand there, each in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.processes import REPOSITORY, Served, environment, served_by

PAGE = (REPOSITORY / "docs/packaging.md").read_text()
GENERATOR, TRANSLATOR = (
    PAGE.split(f"## {title}")[1].split("\n## ")[0] for title in ("In ten minutes", "A translator in ten minutes")
)
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


def blocks_of(section: str) -> list[tuple[str, str]]:
    return re.findall(r"```(sh|python)\n(.*?)```", section, re.DOTALL)


def walk(section: str, folder: Path, variables: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Do what comes before the server; return the commands' outputs, and the remaining commands."""
    files = iter(re.findall(r"(?:Save this as|Replace) `([\w./-]+\.py)`", section))
    result, commands = dict[str, str](), list[str]()
    for language, block in blocks_of(section):
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
    with walking(GENERATOR, tmp_path_factory.mktemp("walk")) as found:
        yield found


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    with walking(TRANSLATOR, tmp_path_factory.mktemp("walk")) as found:
        yield found


@contextmanager
def walking(section: str, folder: Path) -> Iterator[Walked]:
    """Do all of a tutorial; its server runs until the end."""
    path = f"{Path(sys.executable).parent}:{environment(folder)['PATH']}"
    variables = environment(folder, {"PATH": path, "OMP_NUM_THREADS": "1"})
    result, after = walk(section, folder, variables)
    ports = {"FOUNT_SERVE_PORT": "0", "FOUNT_SERVE_HTTP_PORT": "0", "PATH": path}
    with served_by(shlex.split(SERVE), folder, ports) as served:
        found = Walked(folder, served, result, variables | {"FOUNT_SERVER": served.server})
        for command in after:
            result[command] = found.type(command)
        yield found


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
    trained, pasted = (
        block[block.index("class Generator") :] for language, block in blocks_of(GENERATOR) if language == "python"
    )
    assert trained.startswith(pasted.rstrip())


def test_a_translator_passes_every_check(translated: Walked) -> None:
    assert "✗" not in translated.result["fount check upscaler"]
    assert "UNTRAINED" not in translated.type("fount model upscaler")


def test_the_folder_has_a_larger_picture_for_each(translated: Walked) -> None:
    for number in range(6):
        with (
            Image.open(translated.folder / f"small/{number}.png") as small,
            Image.open(translated.folder / f"large/{number}.png") as large,
        ):
            assert (small.size, large.size) == ((16, 16), (32, 32))
            blocks = np.asarray(large, np.float64).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
            assert np.abs(blocks - np.asarray(small)).mean() < 6  # it is the same picture


def test_edges_are_sharper_than_by_repeating_pixels(translated: Walked) -> None:
    with Image.open(translated.folder / "large/0.png") as picture:
        large = np.asarray(picture).astype(int)
    inside = np.abs(large[:, 1::2] - large[:, ::2])  # within the two columns that were one
    assert inside.max() > 60
