"""Imports of what is packed: all that is needed is found, and a family brings nothing along."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.packaging.imports import foreign_imports, modules_needed
from handlers.packaging.pack import PackError, pack

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small tree in which `handlers.start` imports nothing yet."""
    (tmp_path / "handlers/inner").mkdir(parents=True)
    for name in ("__init__", "start", "near", "inner/__init__", "inner/deep"):
        (tmp_path / f"handlers/{name}.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("statement", "reached"),
    [
        pytest.param("import handlers.near", "handlers/near.py", id="plain"),
        pytest.param("from handlers import near", "handlers/near.py", id="from"),
        pytest.param("from . import near", "handlers/near.py", id="relative"),
        pytest.param("from .inner import deep", "handlers/inner/deep.py", id="relative to a package"),
        pytest.param("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import handlers.near",
                     "handlers/near.py", id="other branch of a type check"),
    ],
)  # fmt: skip
def test_an_import_is_followed(house: Path, statement: str, reached: str) -> None:
    (house / "handlers/start.py").write_text(statement)
    assert reached in modules_needed(house, "handlers.start")


def test_a_relative_import_is_followed_out_of_a_package(house: Path) -> None:
    (house / "handlers/start.py").write_text("import handlers.inner")
    (house / "handlers/inner/__init__.py").write_text("from .. import near")
    assert "handlers/near.py" in modules_needed(house, "handlers.start")


def test_an_import_for_type_checkers_is_not_followed(house: Path) -> None:
    (house / "handlers/start.py").write_text("import typing\nif typing.TYPE_CHECKING:\n    import handlers.near")
    assert "handlers/near.py" not in modules_needed(house, "handlers.start")


def test_an_archive_contains_the_archive_checks() -> None:
    assert "fount/archive.py" in modules_needed(ROOT, "handlers.entry")


@pytest.mark.parametrize(
    ("statement", "foreign"),
    [
        ("from . import near", "handlers.near"),
        ("from .near import help", "handlers.near"),
        ("import handlers.near", "handlers.near"),
        ("import scipy.linalg", "scipy.linalg"),
        ("from fount import client", "fount.client"),
    ],
)
def test_a_foreign_import_of_a_family_is_named(house: Path, statement: str, foreign: str) -> None:
    (house / "handlers/start.py").write_text(statement)
    assert foreign in foreign_imports(house, house / "handlers/start.py")


@pytest.mark.parametrize("file", sorted((ROOT / "handlers/models").glob("[!_]*.py")), ids=lambda file: file.stem)
def test_a_shipped_family_imports_nothing_foreign(file: Path) -> None:
    assert foreign_imports(ROOT, file) == []


def test_a_family_may_import_torch_noise_and_its_interface(house: Path) -> None:
    lines = "import math\nimport numpy as np\nfrom torch import nn\nfrom fount.address import Stream\n"
    (house / "handlers/start.py").write_text(f"{lines}from handlers.family import Noise\n")
    assert foreign_imports(house, house / "handlers/start.py") == []


def test_a_family_with_a_helper_is_not_packed(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "handlers.packaging.pack.source_file", lambda _name: ROOT / "handlers/recipes/tasks/autoencoders.py"
    )
    with pytest.raises(PackError, match=r"autoencoders\.py imports .*handlers\.models\.vae.*; a family is one file"):
        pack(store / "small", tmp_path)


def test_checkouts_keep_the_bytes_that_digests_cover() -> None:
    lines = (ROOT / ".gitattributes").read_text().splitlines()
    assert {"* text=auto eol=lf", "*.safetensors binary", "*.png binary"} <= set(lines)
