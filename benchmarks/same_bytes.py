"""Proof that contenders are comparable: each gives the same bytes for the same addresses.

Numerics hold the thread count, so layouts are compared within themselves: TorchServe and Fount with the limit whose
processes have as many threads.
"""

from __future__ import annotations

from benchmarks.child import ChildError
from benchmarks.loads import Load
from benchmarks.processes import through_stubs
from benchmarks.stand import Stand

__all__ = ["check_bytes"]

_DRAWS = 16


def check_bytes(stand: Stand) -> None:
    """Draw the same samples from every contender of each layout.

    Raises:
        ChildError: two give other bytes, so that their speeds say nothing about each other.
    """
    load = Load(kind="digest", server="", requests=_DRAWS, seed=1)
    for layout, limit in stand.limits.items():
        given = {"limit": str(limit.children[0].ask({"draw": _DRAWS})["digest"])}
        if layout in stand.alone:
            given["TorchServe"] = stand.first_finished(stand.alone[layout], load).digest
        if layout in stand.fount:
            server = stand.fount[layout]
            given["Fount"] = stand.first_finished(server, load).digest
            given["Fount, generated stubs"] = stand.first_finished(through_stubs(server), load).digest
        if len(set(given.values())) > 1:
            told = ", ".join(f"{name} {digest[:12]}" for name, digest in given.items())
            raise ChildError(f"other bytes for the same addresses with {layout} workers × threads: {told}")
