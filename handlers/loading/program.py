"""Loading programs: the file is looked at first, so that nothing of it is unpickled or run; then torch reads it.

Enters: a program's file and its kind. Leaves: a module, or one sentence that says why not and what to do.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from handlers.execution.torch_errors import is_out_of_memory
from handlers.faults import tell_fault
from handlers.loading.exported_archive import check_exported_archive
from handlers.loading.file_kinds import tell_wrong_kind
from handlers.loading.torchscript_archive import check_torchscript_archive
from handlers.models.program import load_exported, load_torchscript

__all__ = ["load_program"]


def load_program(file: Path, kind: str, *, most_rows: int) -> nn.Module:
    """Load a program with its weights, on the CPU.

    Args:
        file: the program.
        kind: "torchscript" or "exported".
        most_rows: how many rows it must be able to take at once.

    Returns:
        A module whose `forward`, or `sample`, is the program's.

    Raises:
        ValueError: it is another kind of file, is damaged, holds what must not be read, or takes only some numbers of
            rows; the message says what to do.
        MemoryError: or torch's own error: there is not enough memory for it, now.
    """
    try:
        if wrong := tell_wrong_kind(file, "torchscript" if kind == "torchscript" else "exported"):
            raise ValueError(wrong)
        if kind == "torchscript":
            check_torchscript_archive(file)
            return load_torchscript(file)
        check_exported_archive(file)
        return load_exported(file, most_rows=most_rows)
    except ValueError:
        raise
    except Exception as error:  # torch raises many kinds for damaged files
        if is_out_of_memory(error):
            raise
        remedy = "save the program again with this version of torch, or copy the file again"
        raise ValueError(f"{file.name} cannot be read as {kind}: {tell_fault(error)}; {remedy}") from error
