"""The options that decide which models are loaded: all at the start, or each when it is needed, within limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from fount.machine import available_bytes, usable_cores
from service.cli.default_workers import WORKER_BYTES, format_count
from service.workers.torchserve.load_policy import LoadLimits, estimate_memory

__all__ = ["FEW_MODELS", "Size", "load_limits", "loads_on_demand"]

FEW_MODELS = 8
"""So many models are all loaded at the start."""

_DEFAULT_MODELS = 8  # loaded at once, where the memory is not known


class Size(click.ParamType[int]):
    """A number of bytes, with or without a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert text like "8GiB" or "500 MB"."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?\s*", str(value), re.IGNORECASE)
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a size above 0, like 8GiB, 500MB or 4294967296", param, ctx)
        prefix = (found[2] or "").upper()
        base = 1024 if prefix.endswith("I") else 1000
        return int(float(found[1]) * base ** (" KMGT".index(prefix[0]) if prefix else 0))


def loads_on_demand(context: click.Context, archives: Path) -> bool:
    """Decide from a command's options and its folder of archives whether models are loaded on demand.

    Raises:
        click.UsageError: the options exclude each other.
    """
    load, limited = context.params["load"], context.params["max_loaded"] or context.params["memory_budget"]
    if load == "all" and limited:
        raise click.UsageError("--max-loaded and --memory-budget need --load on-demand")
    files = list(archives.glob("*.mar"))
    chosen = load or ("on-demand" if limited or len(files) > FEW_MODELS else "all")
    return chosen == "on-demand" and bool(files)  # without archives, the start says what is missing


def load_limits(context: click.Context, archives: Path, workers: int) -> LoadLimits:
    """Read the limits of models on demand from a command's options, and print them.

    Args:
        context: of the command.
        archives: a folder with archives.
        workers: the most processes that a model gets.

    Raises:
        click.BadParameter: the memory does not suffice for one model.
    """
    load, models, memory_bytes = (context.params[name] for name in ("load", "max_loaded", "memory_budget"))
    files = sorted(archives.glob("*.mar"), key=lambda file: (file.stat().st_size, file.name))
    needed = estimate_memory(files[-1].stat().st_size, workers)
    if memory_bytes and memory_bytes < needed:
        problem = f"one model needs more: {files[-1].stem} about {_format(needed)}, and this is {_format(memory_bytes)}"
        raise click.BadParameter(problem, param_hint="--memory-budget")
    if not (models or memory_bytes):
        free = available_bytes()
        models = _DEFAULT_MODELS if free is None else max(1, free // 2 // (workers * WORKER_BYTES))
    bounds = [format_count(models, "model")] if models else []
    bounds += [f"{_format(memory_bytes)} of workers"] if memory_bytes else []
    reason = f" (more than {FEW_MODELS}; see --load)" if len(files) > FEW_MODELS and not load else ""
    what, most = format_count(len(files), "model"), " and ".join(bounds)
    click.echo(f"loading {what} on demand{reason}, at most {most} at once", err=True)
    return LoadLimits(models=models, memory_bytes=memory_bytes, starting=max(1, usable_cores() // 2))


def _format(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
