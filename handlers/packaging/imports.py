"""Imports: which modules of this distribution a module needs, read from sources and never by running them.

Packing takes exactly these, so an archive runs without the distribution installed and carries nothing it does not need.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FAMILY_IMPORTS", "modules_needed", "strangers_of_family"]

FAMILY_IMPORTS = ("torch", "numpy", "fount.address", "fount.transform_columns", "handlers.family")
"""What the one file of a family may import besides the standard library: its source is in the model digest, and
helpers of its own would not be."""

_PACKAGES = ("fount", "handlers")


def modules_needed(root: Path, start: str) -> dict[str, Path]:
    """Follow imports from one module.

    Args:
        root: the folder that has `fount` and `handlers`.
        start: where to begin, like "handlers.worker.worker".

    Returns:
        For each module reached, and each package around it, its path relative to root and its file. Imports for type
        checkers alone are not followed.
    """
    reached: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        file = _file_of(root, name)
        path = file.relative_to(root).as_posix() if file else None
        if file is None or path is None or path in reached:
            continue
        reached[path] = file
        waiting.extend(name for name in _imports_of(file, root) if name.split(".")[0] in _PACKAGES)
        waiting.extend(_packages_around(name))
    return reached


def strangers_of_family(root: Path, file: Path) -> list[str]:
    """Name what a family's file imports beyond `FAMILY_IMPORTS`, sorted.

    Args:
        root: the folder that has `fount` and `handlers`.
        file: the family's, below root.
    """
    return sorted({name for name in _imports_of(file, root) if not _is_known_to_families(name)})


def _is_known_to_families(name: str) -> bool:
    known = any(name == allowed or name.startswith(f"{allowed}.") for allowed in FAMILY_IMPORTS)
    is_above = any(allowed.startswith(f"{name}.") for allowed in FAMILY_IMPORTS)
    return known or is_above or name.split(".")[0] in sys.stdlib_module_names


def _file_of(root: Path, name: str) -> Path | None:
    stem = root.joinpath(*name.split("."))
    for file in (stem.with_suffix(".py"), stem / "__init__.py"):
        if file.is_file():
            return file
    return None


def _packages_around(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts)))


def _imports_of(file: Path, root: Path) -> Iterator[str]:
    """Name what a file imports, relative imports in full."""
    package = file.relative_to(root).parent.parts
    for node in _running_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        yield from _names_in(node, package)


def _running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk all nodes but those for type checkers alone."""
    yield node
    typing_only = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    for child in node.orelse if isinstance(node, ast.If) and typing_only else ast.iter_child_nodes(node):
        yield from _running_nodes(child)


def _names_in(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) + 1 - node.level] if node.level else ()
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)  # some of these are modules, too
