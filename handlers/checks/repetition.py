"""The check `deterministic`: the same rows give the same bytes, whatever was drawn before.

A sample has an address, and is promised to be the same tomorrow. So nothing may come from a global generator, and a
call may leave nothing behind that the next one sees.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from handlers.checks.entry_points import entry_of, own_module, told_export
from handlers.checks.finding import Finding, apart, failed, passed, told_apart, warned
from handlers.checks.layers import Trace, find_parting, remedy_for_memory, remedy_for_randomness, trace
from handlers.checks.subject import Subject, seed_globals
from handlers.execution.pixels import Float32s
from handlers.execution.rows import Rows

__all__ = ["check_deterministic"]

CHECK = "deterministic"
_ROWS = 7
_MOST_NAMED = 5


def check_deterministic(subject: Subject) -> Finding:
    """Run the same rows again, with global generators elsewhere, and look at what the calls left behind."""
    module = own_module(subject)
    rows = subject.rows(subject.batch(_ROWS))
    tensors, attributes = _read_tensors(module), _read_attributes(module)
    first, again, elsewhere = (_run(subject, rows, seed) for seed in (1, 1, 2))
    changed = _changed(tensors, _read_tensors(module))
    if changed:
        seen = f"sampling changed {', '.join(changed)} of the module"
        change = remedy_for_memory(changed) + told_export(subject)
        return failed(CHECK, seen + _told_results(subject, first, again), change, blocks=True)
    if (difference := apart(first, again)) != 0:
        return _say_changing(subject, rows, difference, (1, 1))
    if (difference := apart(first, elsewhere)) != 0:
        return _say_changing(subject, rows, difference, (1, 2))
    if changed := _changed(attributes, _read_attributes(module)):
        seen = f"the same bytes again, but sampling changed {', '.join(changed)}"
        return warned(CHECK, seen, remedy_for_memory([]))
    return passed(CHECK, "the same bytes again, and with other global seeds; nothing is left behind")


def _run(subject: Subject, rows: Rows, seed: int) -> Float32s:
    seed_globals(seed)
    return subject.run(rows)


def _told_results(subject: Subject, first: Float32s, again: Float32s) -> str:
    difference = apart(first, again)
    return f"; the same rows then differ by up to {told_apart(subject, difference)}" if difference else ""


def _say_changing(subject: Subject, rows: Rows, difference: float, seeds: tuple[int, int]) -> Finding:
    entry = entry_of(subject)
    traces = [_trace(subject, rows, seed) for seed in seeds]
    place = find_parting(traces[0], traces[1], 0.0, entry)
    is_random = seeds[0] != seeds[1]
    when = "when global generators stood elsewhere" if is_random else "when they were run again"
    seen = f"the same rows gave another result {when}: up to {told_apart(subject, difference)}\nfirst {place.told}"
    change = remedy_for_randomness(place, entry)
    if not is_random:
        change = f"look there for a counter, a cache, the time or an unseeded generator: {remedy_for_memory([])}"
    return failed(CHECK, seen, change + told_export(subject), blocks=True)


def _trace(subject: Subject, rows: Rows, seed: int) -> Trace:
    seed_globals(seed)
    return trace(own_module(subject), lambda: subject.run(rows), None, len(rows))


def _read_tensors(module: nn.Module) -> dict[str, object]:
    """Digest every parameter and buffer, those that are not saved included."""
    named: dict[str, torch.Tensor] = {f"parameter {name}": tensor for name, tensor in module.named_parameters()}
    named |= {f"buffer {name}": tensor for name, tensor in module.named_buffers()}
    return {name: _digest(tensor) for name, tensor in named.items()}


def _digest(tensor: torch.Tensor) -> bytes:
    values = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(values.numpy().data, digest_size=16).digest()


def _read_attributes(module: nn.Module) -> dict[str, object]:
    """Read the plain attributes of every submodule: numbers and texts."""
    return {
        f"{name}.{key}".lstrip("."): value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, int | float | str)
    }


def _changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    names = [name for name, value in after.items() if before.get(name) != value]
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return names[:_MOST_NAMED] + more
