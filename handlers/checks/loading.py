"""The checks `card` and `weights`: the card can be read, the model can be built, and its weights are all there."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from handlers.cards.card import CardError, check_weights, load_card
from handlers.checks.finding import Finding, failed, passed, warned
from handlers.checks.subject import Subject
from handlers.execution.network import build_network
from handlers.execution.numerics import configure_torch
from handlers.loading.build import BuildError, build_module
from handlers.loading.memory import RoomError, available_bytes, check_room
from handlers.loading.weights import WeightsError
from handlers.models import UnknownFamilyError
from handlers.scaffold.template import keys_unwritten

__all__ = ["check_card", "check_memory", "check_weights_load", "resident_bytes", "tell_bytes"]


def check_card(subject: Subject) -> Finding:
    """Read the card; every problem is told at once."""
    try:
        card = load_card(subject.folder)
    except CardError as error:
        count = f"{len(error.problems)} problem{'s' * (len(error.problems) > 1)}"
        return failed("card", f"model.yaml has {count}", "\n".join(map(str, error.problems)), blocks=True)
    subject.card = card
    sample, classes = card.sample, len(card.classes)
    labels = f"{classes} classes" if classes else "no classes"
    shape = f"{sample.height}×{sample.width}×{sample.channels}"
    seen = f"{card.name} {card.version}: {card.family.name}, {shape}, {labels}"
    if unwritten := keys_unwritten(card):
        keys = ", ".join(unwritten)
        change = f"write in model.yaml what they ask for ({keys}): clients read it"
        return warned("card", f"{seen}\nstill the text that `fount new` put there: {keys}", change)
    return passed("card", seen)


def check_weights_load(subject: Subject) -> Finding:
    """Build the model as a worker does, with its weights."""
    card, folder = subject.card, subject.folder
    configure_torch(subject.settings)
    subject.resident_before = resident_bytes()
    try:
        check_room(folder / card.weights.file)  # first, since taking the digest of what cannot be loaded takes long
        check_weights(card, folder)
        subject.network = build_network(card, build_module(card, folder), subject.settings)
    except (BuildError, CardError, RoomError, UnknownFamilyError, WeightsError) as error:
        wrong, change = _cut(str(error) if not isinstance(error, CardError) else str(error.problems[0]))
        return failed("weights", wrong, change, blocks=True)
    module = subject.network.module
    count = sum(parameter.numel() for parameter in module.parameters())
    size = tell_bytes((folder / card.weights.file).stat().st_size)
    seen = f"{card.weights.file}: {count:,} parameters, {size}"
    return passed("weights", seen, numbers={"parameters": float(count)})


def _cut(sentence: str) -> tuple[str, str]:
    """Cut an error's sentence into what is wrong and the remedy, which follows its last semicolon."""
    wrong, _, change = sentence.rpartition("; ")
    return (wrong, change) if wrong else (sentence, "mend it, and check again")


# FOLDED FROM handlers.checks.loading:
# The check `memory`: what one worker of this model takes. The process is the child that runs the checks, so
# what it takes before the model is loaded is what any worker takes.


_STATUS = Path("/proc/self/status")
_SHARE = 0.5  # of what is free, beyond which two workers would not fit


def check_memory(subject: Subject) -> Finding:
    """Run the largest batch a worker would, and read what the process took at most."""
    largest = subject.profile.exec_batch_sizes[-1]
    subject.run(subject.rows(largest))
    loaded, peak = resident_bytes(), _peak_bytes()
    weights = (subject.folder / subject.card.weights.file).stat().st_size
    before = subject.resident_before
    seen = (
        f"weights {tell_bytes(weights)}; the process {tell_bytes(before)} before, {tell_bytes(loaded)} with the model,"
        f" {tell_bytes(peak)} at most (batches of {largest})"
    )
    numbers = {"weights_bytes": float(weights), "resident_bytes": float(loaded), "peak_bytes": float(peak)}
    if subject.settings.device != "cpu":
        taken = torch.cuda.max_memory_allocated(subject.settings.device)
        seen, numbers = f"{seen}; on the device {tell_bytes(taken)}", numbers | {"device_bytes": float(taken)}
    free = available_bytes()
    if free is not None and peak > _SHARE * (free + loaded):
        change = "serve it with one worker, on a larger machine, or with a smaller limits.max_exec_batch"
        return warned(
            "memory", f"{seen}; {tell_bytes(free + loaded)} are there for all workers", change, numbers=numbers
        )
    return passed("memory", seen, numbers=numbers)


def resident_bytes() -> int:
    """What the process holds in memory now; what it held at most where that is not told."""
    return _read_status("VmRSS:") or _peak_bytes()


def tell_bytes(count: float) -> str:
    """Say a size as people do."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"


def _peak_bytes() -> int:
    found = _read_status("VmHWM:")
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _read_status(key: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
