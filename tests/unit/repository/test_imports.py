"""Who may import whom: the light client stays light, the gateway never loads torch, families read as one page.

Import statements are read from the source, wherever they stand, functions and `importlib.import_module("…")` included,
and followed through every module of the project; code under `if TYPE_CHECKING:` never runs and is left out.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("fount", "service", "handlers")

FORBIDDEN = {
    "service": {"torch", "torchvision", "ts", "handlers"},
    "handlers": {"service"},
    "fount": {"service", "handlers", "torch", "ray", "datasets", "aiohttp", "prometheus_client"},
}
# The adapters of other libraries, each with the one it is for; only `fount.adapters` names them, on first use.
ADAPTERS = {
    "fount/adapters/huggingface.py": "datasets",
    "fount/adapters/ray.py": "ray",
    "fount/adapters/torch_dataset.py": "torch",
}
FAMILY_IMPORTS = {"torch", "numpy", "fount.address", "fount.transform_columns", "handlers.family"}


# --- Reading imports --------------------------------------------------------------------------------------------------


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    yield tree
    typing_only = isinstance(tree, ast.If) and ast.unparse(tree.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    for child in tree.orelse if typing_only else ast.iter_child_nodes(tree):
        yield from running_nodes(child)


def names_in(node: ast.AST, package: list[str]) -> Iterator[str]:
    """Dotted names a node imports; of `from a import b` both a and a.b, since b may be a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) + 1 - node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module"):
        yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def imports_of(path: Path, root: Path) -> set[str]:
    package = list(path.relative_to(root).parent.parts)
    return {name for node in running_nodes(ast.parse(path.read_text())) for name in names_in(node, package)}


def file_of(name: str, root: Path) -> Path | None:
    """The project's own module of a dotted name, if it is one."""
    place = root.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def files_loaded_by(name: str, root: Path) -> Iterator[Path]:
    """The module itself and every package above it, which Python runs first."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = file_of(".".join(parts[:end]), root)
        if path:
            yield path


def violations(room: str, root: Path = ROOT) -> list[str]:
    """Chains of imports from a room to what it must not reach, shortest first."""
    chains = {path: [str(path.relative_to(root))] for path in sorted((root / room).rglob("*.py"))}
    queue, found = list(chains), []
    while queue:
        path = queue.pop(0)
        for name in sorted(imports_of(path, root)):
            library = name.split(".")[0]
            if library in FORBIDDEN[room] and ADAPTERS.get(str(path.relative_to(root))) != library:
                found.append(" -> ".join([*chains[path], name]))
            for reached in files_loaded_by(name, root):
                if reached not in chains:
                    chains[reached] = [*chains[path], str(reached.relative_to(root))]
                    queue.append(reached)
    return found


def family_violations(root: Path = ROOT) -> list[str]:
    """Imports of model families that are neither the standard library nor on the short list."""
    found = []
    for path in sorted((root / "handlers" / "models").glob("[!_]*.py")):
        for name in sorted(imports_of(path, root)):
            allowed = any(name == known or name.startswith(f"{known}.") for known in FAMILY_IMPORTS)
            packages_above = any(known.startswith(f"{name}.") for known in FAMILY_IMPORTS)
            if not (allowed or packages_above or name.split(".")[0] in sys.stdlib_module_names):
                found.append(f"{path.relative_to(root)} -> {name}")
    return found


# --- The rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_reaches_only_what_it_may(room: str) -> None:
    assert violations(room) == []


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_an_adapter_is_reached_by_name_alone(adapter: str) -> None:
    module = adapter.removesuffix(".py").replace("/", ".")
    naming = [path for path in (ROOT / "fount").rglob("*.py") if module in imports_of(path, ROOT)]
    assert naming == []


def test_the_data_sets_of_a_client_load_no_library() -> None:
    code = f"import sys, fount.adapters; sys.exit(bool({set(ADAPTERS.values())} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_family_reads_alone() -> None:
    assert family_violations() == []


# --- The rules can fail -----------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small tree in which every rule holds."""
    for room in (*ROOMS, "handlers/models", "service/catalog"):
        (tmp_path / room).mkdir(parents=True)
        (tmp_path / room / "__init__.py").write_text("")
    (tmp_path / "service/catalog/models.py").write_text("from ..names import NAME\n")
    (tmp_path / "service/names.py").write_text("NAME = 'fount'\n")
    return tmp_path


@pytest.mark.parametrize("room", ROOMS)
def test_a_sound_tree_has_no_violation(house: Path, room: str) -> None:
    assert violations(room, house) == []


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("import torch", id="plain"),
        pytest.param("import torch.nn as nn", id="submodule"),
        pytest.param("from torch import Tensor", id="from"),
        pytest.param("def draw():\n    from torch import Tensor", id="inside a function"),
        pytest.param("try:\n    import torch\nexcept ImportError:\n    pass", id="guarded"),
        pytest.param("import importlib\nimportlib.import_module('torch.nn')", id="by name"),
    ],
)
def test_a_planted_import_is_found(house: Path, statement: str) -> None:
    (house / "service/planted.py").write_text(statement)
    assert any(chain.startswith("service/planted.py -> torch") for chain in violations("service", house))


def test_an_import_that_only_types_need_is_no_violation(house: Path) -> None:
    lines = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
    (house / "service/planted.py").write_text(lines)
    assert violations("service", house) == []


def test_the_other_branch_of_a_type_check_is_read(house: Path) -> None:
    lines = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import torch\n"
    (house / "service/planted.py").write_text(lines)
    assert violations("service", house) == ["service/planted.py -> torch"]


def test_a_chain_is_followed_to_its_end(house: Path) -> None:
    (house / "service/names.py").write_text("from fount import drawing")
    (house / "fount/drawing.py").write_text("import torch")
    assert "service/names.py -> fount/drawing.py -> torch" in violations("service", house)


def test_a_relative_chain_is_followed(house: Path) -> None:
    (house / "service/names.py").write_text("from .catalog import planted")
    (house / "service/catalog/planted.py").write_text("from handlers import family")
    assert "service/catalog/planted.py -> handlers" in violations("service", house)


def test_a_package_s_own_file_is_read_on_the_way_to_its_modules(house: Path) -> None:
    (house / "fount/__init__.py").write_text("import torch")
    (house / "fount/address.py").write_text("")
    (house / "service/names.py").write_text("import fount.address")
    assert "service/names.py -> fount/__init__.py -> torch" in violations("service", house)


@pytest.mark.parametrize(("adapter", "library"), sorted(ADAPTERS.items()))
def test_an_adapter_may_import_its_library_and_no_other(house: Path, adapter: str, library: str) -> None:
    (house / adapter).parent.mkdir()
    (house / adapter).write_text(f"import {library}\nimport aiohttp\n")
    assert violations("fount", house) == [f"{adapter} -> aiohttp"]


@pytest.mark.parametrize(
    ("room", "name"),
    [(room, name) for room, names in sorted(FORBIDDEN.items()) for name in sorted(names)],
    ids=lambda value: value,
)
def test_everything_forbidden_is_found(house: Path, room: str, name: str) -> None:
    (house / room / "planted.py").write_text(f"import {name}")
    assert violations(room, house) == [f"{room}/planted.py -> {name}"]


@pytest.mark.parametrize(
    "name", ["handlers.cards.card", "fount.client.sync", "safetensors", "handlers.models.vae", "sklearn"]
)
def test_a_family_that_leaves_its_page_is_found(house: Path, name: str) -> None:
    (house / "handlers/models/planted.py").write_text(f"import {name}")
    assert family_violations(house) == [f"handlers/models/planted.py -> {name}"]


def test_a_family_may_read_torch_noise_and_its_own_interface(house: Path) -> None:
    lines = "import math\nimport numpy as np\nfrom torch import nn\nfrom fount.address import Stream\n"
    (house / "handlers/models/planted.py").write_text(f"{lines}from handlers.family import Noise\n")
    assert family_violations(house) == []
