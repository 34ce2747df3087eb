"""Compare the ways of running a network: as it is, folded, compiled, and optimised TorchScript.

A subject whose profile was measured enters; the lines of a table leave, with the time of a batch of 1, 8 and 64 rows in
each mode, and the sizes at which rows are equal. A worker runs the first three; TorchScript is there to compare.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fount.cli.output.text import table
from handlers.checks.subject import Subject
from handlers.execution.compiling import compile_called, find_compiler, record_calls
from handlers.execution.errors import describe_error, is_out_of_memory
from handlers.execution.network import Network, build_network
from handlers.execution.rows import Rows
from handlers.loading.build import build_module
from handlers.verification.profile import measure_profile, run_probe

__all__ = ["compare_modes"]

_SIZES = (1, 8, 64)
_ROUNDS, _TIMED_S = 30, 3.0  # limits of the timing
_HEADER = ("mode", *(f"ms for {size}" for size in _SIZES), "rows equal at")


@dataclass(frozen=True, kw_only=True)
class _Mode:
    """One way of running.

    Attributes:
        name: for the table.
        network: prepared; None when it cannot run so.
        reason: why it cannot.
    """

    name: str
    network: Network | None
    reason: str = ""


def compare_modes(subject: Subject) -> list[str]:
    """Prepare every mode, verify its rows and time it, in turn with the others.

    Returns:
        The lines of the table; times are medians.
    """
    builders: list[tuple[str, Callable[[Subject], Network]]] = [
        ("eager", _build_eager), ("folded", lambda subject: subject.network), ("folded, compiled", _build_compiled),
        ("TorchScript, optimize_for_inference", _build_script),
    ]  # fmt: skip
    modes = [_prepare(name, build, subject) for name, build in builders]
    seconds = _time_in_turn(subject, modes)
    lines: list[Sequence[str]] = [_HEADER]
    for mode in modes:
        times = [f"{1000 * seconds[mode.name, size]:.2f}" if mode.network else "" for size in _SIZES]
        equal = ", ".join(map(str, _equal_sizes(subject, mode.network))) if mode.network else mode.reason
        lines.append((mode.name, *times, equal or "none"))
    return list(table(lines))


def _prepare(name: str, build: Callable[[Subject], Network], subject: Subject) -> _Mode:
    """Build a mode and run each size once."""
    try:
        network = build(subject)
        for size in _SIZES:
            subject.run(subject.rows(size), network)
    except Exception as error:  # a compiler, or a user's code when it is traced, may raise anything
        if is_out_of_memory(error):
            raise
        return _Mode(name=name, network=None, reason=f"cannot run so: {describe_error(error)}")
    return _Mode(name=name, network=network)


def _build_eager(subject: Subject, *, folded: bool = False) -> Network:
    """Build the network with its layers padded, as a worker does."""
    settings = dataclasses.replace(subject.settings, folded=folded)
    limits = dataclasses.replace(subject.card.limits, max_exec_batch=_SIZES[-1])
    card = dataclasses.replace(subject.card, limits=limits)
    network = build_network(card, build_module(card, subject.folder), settings)
    measure_profile(network)
    return network


def _build_compiled(subject: Subject) -> Network:
    if find_compiler() is None:
        raise ValueError("there is no C++ compiler")
    network = _build_eager(subject, folded=True)
    compile_called(network.module, lambda: run_probe(network), None)
    return network


def _build_script(subject: Subject) -> Network:
    """Trace, freeze and optimise the modules that a batch calls, once for each size."""
    network = build_network(subject.card, build_module(subject.card, subject.folder), subject.settings)
    with record_calls(network.module) as called:
        run_probe(network)
    if not called:
        raise ValueError("the model calls no module that could be traced")
    for part in called:
        versions = {size: _trace(subject, network, part, size) for size in _SIZES}

        def run(*inputs: Any, versions: dict[int, Any] = versions) -> Any:
            return versions[inputs[0].shape[0]](*inputs)

        part.forward = run
    return network


@torch.no_grad()
def _trace(subject: Subject, network: Network, part: nn.Module, size: int) -> Any:
    seen: list[tuple[Any, ...]] = []
    handle = part.register_forward_pre_hook(lambda _part, inputs: seen.append(inputs))
    subject.run(subject.rows(size), network)
    handle.remove()
    inputs = tuple(each.clone() for each in seen[0])  # not inference tensors, which cannot be traced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        traced = torch.jit.trace(part, inputs, check_trace=False)  # type: ignore[no-untyped-call]
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))


def _time_in_turn(subject: Subject, modes: Sequence[_Mode]) -> dict[tuple[str, int], float]:
    """Time every mode at every size in turn, so that other load on the machine hits all alike."""
    times: dict[tuple[str, int], list[float]] = {}
    started = time.perf_counter()
    rows: dict[int, Rows] = {size: subject.rows(size) for size in _SIZES}
    for done in range(_ROUNDS):
        for size in _SIZES:
            for mode in modes:
                if mode.network is not None:
                    start = time.perf_counter()
                    subject.run(rows[size], mode.network)
                    times.setdefault((mode.name, size), []).append(time.perf_counter() - start)
        if done and time.perf_counter() - started > _TIMED_S:
            break
    return {key: sorted(spent)[len(spent) // 2] for key, spent in times.items()}


def _equal_sizes(subject: Subject, network: Network) -> list[int]:
    """Return the sizes at which rows have the bytes that they have in the largest."""
    rows = subject.rows(_SIZES[-1])
    expected = subject.run(rows, network).tobytes()

    def run(size: int) -> bytes:
        parts = (rows.take(slice(start, start + size)) for start in range(0, len(rows), size))
        return b"".join(subject.run(part, network).tobytes() for part in parts)

    return [size for size in _SIZES if run(size) == expected]
