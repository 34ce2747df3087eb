"""An installed Fount, without a clone: built as a wheel, put into a fresh environment, used from an empty folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.processes import REPOSITORY, environment, served_by

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is packaged, so that nothing is written beside the sources."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    packages = ("fount", "service", "handlers", "model_store")
    files = [REPOSITORY / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    subprocess.run(["cp", "-r", *(str(REPOSITORY / name) for name in packages), *map(str, files), copy], check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(out),
        str(copy),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def fount(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a fresh environment that has this wheel, and otherwise borrows what is installed here."""
    fresh = tmp_path_factory.mktemp("fresh")
    venv.create(fresh, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(fresh / "bin/python"), "install", "--no-deps", "-q", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = fresh.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return fresh / "bin/fount"


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as members:
        names = set(members.namelist())
    needed = {"fount/py.typed", "fount/v1/model_pb2.pyi", "handlers/scaffold/stubs/test_model.py", "fount/__main__.py"}
    assert needed <= names
    rooms = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert rooms == {"fount", "service", "handlers"}


def test_a_model_goes_all_the_way_without_a_clone(fount: Path, tmp_path: Path) -> None:
    def run(*arguments: str, **variables: str) -> str:
        done = subprocess.run(
            [str(fount), *arguments], cwd=tmp_path, env=environment(tmp_path, variables), text=True,
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("new", "shapes", "--size", "8x12", "--latent", "16")
    run("check", "shapes")
    assert "build/archives/shapes-1.0.mar" in run("pack", "shapes")
    serve = [str(fount), "serve", "--model-store", "model_store", "--port", "0", "--http-port", "0"]
    with served_by(serve, tmp_path, None) as served:
        run("sample", "shapes", "--count", "4", "--seed", "1", "--out", "four.npz", FOUNT_SERVER=served.server)
    with np.load(tmp_path / "four.npz", allow_pickle=False) as stored:
        assert stored["samples"].shape == (4, 8, 12, 3)


def test_the_commands_of_the_fresh_environment_are_its_own(fount: Path, tmp_path: Path) -> None:
    code = "import fount, handlers, service; print(fount.__file__, handlers.__file__, service.__file__)"
    result = subprocess.run([str(fount.with_name("python")), "-c", code], cwd=tmp_path, text=True, capture_output=True)
    assert all(Path(file).is_relative_to(fount.parents[1]) for file in result.stdout.split())
