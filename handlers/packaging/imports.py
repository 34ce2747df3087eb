"""Trace imports: which modules of this distribution a module needs, by parsing sources, never by running them.

Packing includes exactly these, so an archive runs without the distribution installed and has nothing it does not need.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from handlers.models import BASES

__all__ = ["FAMILY_IMPORTS", "foreign_imports", "modules_needed"]

FAMILY_IMPORTS = (
    "torch", "numpy", "diffusers", "fount.address", "fount.gradient_noise", "fount.transform_columns",
    "handlers.discrete", "handlers.family", "handlers.stepping",
)  # fmt: skip
"""What the one file of a family may import in addition to the standard library: its source is in the model digest,
and the source of further modules would not be. Of `handlers.discrete`, `EXECUTION_VERSION` is, of `fount.address` and
`fount.gradient_noise` the version of the noise."""

_PACKAGES = ("fount", "handlers")


def modules_needed(root: Path, start: str) -> dict[str, Path]:
    """Follow imports from one module.

    Args:
        root: the folder that has `fount` and `handlers`.
        start: the first module, like "handlers.worker.worker".

    Returns:
        The file of each module reached, and of each package that contains one, by its path relative to root. Imports
        for type checkers only are not followed.
    """
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        stem = root.joinpath(*name.split("."))
        file = next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)
        if file is None or (path := file.relative_to(root).as_posix()) in found:
            continue
        found[path] = file
        waiting.extend(name for name in _imports_of(file, root) if name.split(".")[0] in _PACKAGES)
        waiting.append(name.rpartition(".")[0] or name)  # the package that contains it
    return found


def foreign_imports(root: Path, file: Path) -> list[str]:
    """List what a family's file imports beyond `FAMILY_IMPORTS` and its base, sorted.

    Args:
        root: the folder that has `fount` and `handlers`.
        file: the family's, below root.
    """
    base = BASES.get(file.stem)
    known = (*FAMILY_IMPORTS, *([f"handlers.models.{base}"] if base else []))

    def is_allowed(name: str) -> bool:  # also what contains, or is contained in, an allowed module
        pairs = [(f"{name}.", f"{allowed}.") for allowed in known]
        return any(one.startswith(other) or other.startswith(one) for one, other in pairs)

    names = set(_imports_of(file, root))
    return sorted(name for name in names if not is_allowed(name) and name.split(".")[0] not in sys.stdlib_module_names)


def _imports_of(file: Path, root: Path) -> Iterator[str]:
    """Yield what a file imports, relative imports in full."""
    package = file.relative_to(root).parent.parts
    for node in _runtime_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        yield from _names_in(node, package)


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk all nodes except those for type checkers only."""
    yield node
    typing_only = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    for child in node.orelse if isinstance(node, ast.If) and typing_only else ast.iter_child_nodes(node):
        yield from _runtime_nodes(child)


def _names_in(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) + 1 - node.level] if node.level else ()
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)  # some of these are modules, too
