"""The checks `card`, `weights` and `memory`: the card is valid, the model loads, and its memory use is known."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from fount.machine import available_bytes
from handlers.cards.card import CardError, load_card
from handlers.cards.digests import check_weights
from handlers.checks.report import Finding, failed, passed, warned
from handlers.checks.subject import Subject
from handlers.execution.network import build_network
from handlers.execution.numerics import configure_torch
from handlers.loading.build import BuildError, build_module
from handlers.loading.memory import InsufficientMemoryError, require_memory
from handlers.loading.weights import WeightsError
from handlers.models import UnknownFamilyError
from handlers.scaffold.template import keys_unwritten

__all__ = ["check_card", "check_memory", "check_weights_load"]

_STATUS = Path("/proc/self/status")
_MAX_SHARE = 0.5  # of the memory that is free; beyond it two workers do not fit


def check_card(subject: Subject) -> Finding:
    """Read the card, and report all of its problems at once."""
    try:
        card = load_card(subject.folder)
    except CardError as error:
        count = f"{len(error.problems)} problem{'s' * (len(error.problems) > 1)}"
        return failed("card", f"model.yaml has {count}", "\n".join(map(str, error.problems)), blocks=True)
    subject.card = card
    sample, classes = card.sample, len(card.classes)
    labels = f"{classes} classes" if classes else "no classes"
    shape = "×".join(map(str, sample.shape))
    seen = f"{card.name} {card.version}: {card.family.name}, {shape}, {labels}"
    if unwritten := keys_unwritten(card):
        keys = ", ".join(unwritten)
        change = f"replace the text of these keys in model.yaml ({keys}): clients read it"
        return warned("card", f"{seen}\nstill the text that `fount new` wrote: {keys}", change)
    return passed("card", seen)


def check_weights_load(subject: Subject) -> Finding:
    """Build the model with its weights, as a worker does."""
    card, folder = subject.card, subject.folder
    configure_torch(subject.settings)
    subject.resident_before = _resident_bytes()
    try:
        require_memory(folder / card.weights.file)  # first: digesting a file that is too large to load takes long
        check_weights(card, folder)
        subject.network = build_network(card, build_module(card, folder), subject.settings)
    except (BuildError, CardError, InsufficientMemoryError, UnknownFamilyError, WeightsError) as error:
        sentence = str(error.problems[0]) if isinstance(error, CardError) else str(error)
        wrong, _, change = sentence.rpartition("; ")  # the remedy follows the last semicolon
        return failed("weights", wrong or sentence, change if wrong else "correct it, and check again", blocks=True)
    count = sum(parameter.numel() for parameter in subject.network.module.parameters())
    size = _format_bytes((folder / card.weights.file).stat().st_size)
    seen = f"{card.weights.file}: {count:,} parameters, {size}"
    return passed("weights", seen, numbers={"parameters": float(count)})


def check_memory(subject: Subject) -> Finding:
    """Run the largest batch of a worker, and read the peak memory use of this process.

    The process is the child that runs the checks, so what it uses before the model is loaded is what any worker uses.
    """
    largest = subject.profile.exec_batch_sizes[-1]
    subject.run(subject.rows(largest))
    loaded, peak = _resident_bytes(), _peak_bytes()
    weights = (subject.folder / subject.card.weights.file).stat().st_size
    seen = (
        f"weights {_format_bytes(weights)}; the process {_format_bytes(subject.resident_before)} before,"
        f" {_format_bytes(loaded)} with the model, {_format_bytes(peak)} at most (batches of {largest})"
    )
    numbers = {"weights_bytes": float(weights), "resident_bytes": float(loaded), "peak_bytes": float(peak)}
    if subject.settings.device != "cpu":
        on_device = torch.cuda.max_memory_allocated(subject.settings.device)
        seen += f"; on the device {_format_bytes(on_device)}"
        numbers["device_bytes"] = float(on_device)
    free = available_bytes()
    if free is not None and peak > _MAX_SHARE * (free + loaded):
        change = "serve it with one worker, on a larger machine, or with a smaller limits.max_exec_batch"
        seen += f"; {_format_bytes(free + loaded)} are available to all workers"
        return warned("memory", seen, change, numbers=numbers)
    return passed("memory", seen, numbers=numbers)


def _format_bytes(count: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"


def _resident_bytes() -> int:
    """Read the memory the process uses now; its peak on systems without /proc."""
    return _read_status("VmRSS:") or _peak_bytes()


def _peak_bytes() -> int:
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return _read_status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _read_status(key: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
