"""Opening the stand: packing, limits, clients and servers of one precision, and their end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from benchmarks.child import ROOT, Child, ChildError
from benchmarks.fount_stack import fount_before_two, fount_serve
from benchmarks.plan import Layout, Plan, Precision
from benchmarks.processes import Server
from benchmarks.stand import Limit, Stand
from benchmarks.torchserve_alone import torchserve_alone, worker_environment

__all__ = ["open_stand"]

_CLIENTS = 4
_TRY_S = 0.3  # a size of the limit, at least
_REPLICAS = Layout(workers=2, threads=1)


@contextmanager
def open_stand(plan: Plan, precision: Precision, folder: Path) -> Iterator[Stand]:
    """Start everything the plan needs in one precision, and end it with the block.

    Args:
        plan: of the run.
        precision: what is computed in.
        folder: where archives and profiles are kept from run to run.

    Raises:
        StartError: a server did not come up.
        ChildError: packing, or a limit, failed.
    """
    packed, state = folder / precision, folder / "state"
    _pack(precision, packed)
    state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        built = Stand(plan=plan, precision=precision, clients=[])
        for layout in plan.layouts:  # before the servers: here a profile is measured that is not yet there
            _start_limit(stack, built, layout, packed, state)
        built.clients = [stack.enter_context(Child("benchmarks.client")) for _ in range(_CLIENTS)]
        for client in built.clients:
            client.answer()
        _start_servers(stack, built, list(_wanted_servers(plan, precision, packed, state)))
        yield built


def _wanted_servers(
    plan: Plan, precision: Precision, packed: Path, state: Path
) -> Iterator[tuple[str, Layout, AbstractContextManager[Server]]]:
    """Kind, layout, and how to start it."""
    wanted, archives = set(plan.workloads_in(precision)), packed / "archives"
    for layout in plan.layouts:
        if wanted & {"small", "single"}:
            yield "alone", layout, torchserve_alone(archives, packed / "alone", state, layout, precision)
        if wanted - {"replicas"}:
            yield "fount", layout, fount_serve(archives, state, layout, precision)
    if "replicas" in wanted:
        yield "replicas", _REPLICAS, fount_before_two(archives, state, precision)


def _start_servers(
    stack: ExitStack, built: Stand, starts: Sequence[tuple[str, Layout, AbstractContextManager[Server]]]
) -> None:
    """Start them side by side: each waits for itself most of the time."""
    with ThreadPoolExecutor(len(starts) or 1) as pool:
        started = [pool.submit(stack.enter_context, each) for _, _, each in starts]
    for (kind, layout, _), future in zip(starts, started, strict=True):
        server = future.result()
        match kind:
            case "alone":
                built.alone[layout] = server
            case "fount":
                built.fount[layout] = server
            case _:
                built.replicas = server


def _pack(precision: Precision, out: Path) -> None:
    """Pack in a process of its own: this one stays free of torch."""
    command = [sys.executable, "-m", "benchmarks.models", precision, str(out)]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode:
        raise ChildError(f"packing for {precision} failed; its traceback is above")


def _start_limit(stack: ExitStack, built: Stand, layout: Layout, packed: Path, state: Path) -> None:
    environment = worker_environment(packed / "archives", state, layout, built.precision)
    children = []
    for _ in range(layout.workers):
        child = stack.enter_context(
            Child("benchmarks.limit", str(packed / "unpacked"), environment=environment)
        )  # fmt: skip
        built.numerics[layout.threads] = child.answer()["numerics"]  # one after the other: the first measures a profile
        children.append(child)
    limit = Limit(children=children)
    for size, rate, cpu_seconds in children[0].ask({"choose": max(_TRY_S, built.plan.limit_s / 4)})["sizes"]:
        limit.by_size[size], limit.cpu_s_by_batch[size] = rate, cpu_seconds
    limit.sizes = tuple(sorted(limit.by_size, key=limit.by_size.__getitem__, reverse=True)[:2])
    built.limits[layout] = limit
