"""Imports: which modules of this distribution a module needs, read from sources and never by running them.

Packing takes exactly these, so an archive runs without the distribution installed and carries nothing it does not need.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

__all__ = ["modules_needed"]

_PACKAGES = ("fount", "handlers")


def modules_needed(root: Path, start: str) -> dict[str, Path]:
    """Follow imports from one module.

    Args:
        root: the folder that has `fount` and `handlers`.
        start: where to begin, like "handlers.worker".

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
        waiting.extend(_imports_of(ast.parse(file.read_text(encoding="utf-8"))))
        waiting.extend(_packages_around(name))
    return reached


def _file_of(root: Path, name: str) -> Path | None:
    stem = root.joinpath(*name.split("."))
    for file in (stem.with_suffix(".py"), stem / "__init__.py"):
        if file.is_file():
            return file
    return None


def _packages_around(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts)))


def _imports_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    for name in _names_in(node):
        if name.split(".")[0] in _PACKAGES:
            yield name
    for child in ast.iter_child_nodes(node):
        yield from _imports_of(child)


def _names_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)  # some of these are modules, too
