"""Programs: models whose file contains their graph, as TorchScript (.pt) or as an exported program (.pt2).

Torch reads TorchScript in C++, which knows tensors and TorchScript's types and runs no Python, but whose operators can
open files. It reads an exported program by Python code that trusts the file. Therefore `handlers.loading.program`
checks either file before it is loaded here. A program must accept any number of rows.

Sources: torch.jit.load; torch.export.load.
"""

from __future__ import annotations

import contextlib
import os
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

__all__ = ["load_exported", "load_torchscript"]

_HARMLESS_LOWER = 2  # torch writes 2 for "any number" when it did not check 0 and 1


def load_torchscript(file: Path) -> nn.Module:
    """Load TorchScript on the CPU.

    Raises:
        RuntimeError: torch cannot read it.
    """
    with warnings.catch_warnings():
        # Deprecated, but many trained models are stored so.
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
        module: nn.Module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    return module


def load_exported(file: Path, *, most_rows: int) -> nn.Module:
    """Load an exported program that was checked before, on the CPU.

    Args:
        file: the program.
        most_rows: the number of rows it must accept at once.

    Returns:
        A module whose `forward` is the program's; `train` and `eval` do not change it.

    Raises:
        ValueError: it accepts only some numbers of rows; the message says how to export it.
        RuntimeError: torch cannot read it; torch may raise other exceptions, too.
    """
    try:
        with _weights_only():
            program = torch.export.load(file)
    except ValueError as error:  # this function's ValueErrors have a remedy, torch's have not
        raise RuntimeError(str(error)) from error
    _check_rows(file, program, most_rows)
    # Without guards: torch would compile them from the file's text. Their constraint on rows was just checked.
    module: nn.Module = program.module(check_guards=False)

    def keep_mode(self: nn.Module, mode: bool = True) -> nn.Module:
        """Return the module unchanged: an exported program has no modes, and torch's own method raises."""
        return self

    for part in module.modules():
        part.training = False  # containers of the graph keep torch's default, which has no effect
    module.train = types.MethodType(keep_mode, module)  # type: ignore[method-assign]
    module.eval = types.MethodType(keep_mode, module)  # type: ignore[method-assign]
    return module


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Make torch unpickle nothing but tensors, even where its own code requests more."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _check_rows(file: Path, program: torch.export.ExportedProgram, most_rows: int) -> None:
    """Check that every input's first dimension is dynamic."""
    inputs = set(program.graph_signature.user_inputs)
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if node.name not in inputs or not isinstance(value, torch.Tensor) or not value.ndim:
            continue
        if (wrong := _wrong_rows(program, value.shape[0], most_rows)) is not None:
            example = 'with b = torch.export.Dim("batch") and dynamic_shapes=({0: b}, ...), one entry for each input'
            raise ValueError(f"{file.name} takes {wrong} of {node.name}; export it again {example}")


def _wrong_rows(program: torch.export.ExportedProgram, rows: int | torch.SymInt, most_rows: int) -> str | None:
    if isinstance(rows, int):
        return f"exactly {rows} rows"
    expression = rows.node.expr
    if not expression.is_symbol:
        return f"only {expression} rows"
    bounds = program.range_constraints.get(expression)
    if bounds is not None and (bounds.lower > _HARMLESS_LOWER or bounds.upper < most_rows):
        return f"only {bounds.lower} to {bounds.upper} rows"
    return None
