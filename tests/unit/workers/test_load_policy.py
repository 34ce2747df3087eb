"""The policy of models on demand: which are stopped for another, and which admit no new uses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.workers.torchserve.load_policy import (
    LoadLimits,
    Phase,
    Slot,
    choose_closing,
    choose_evictions,
    estimate_memory,
)

NOW_S = 1000.0
GIB = 1 << 30


def slot(name: str, used_s: float = 0.0, phase: Phase = Phase.LOADED, uses: tuple[float, ...] = (), **fields: Any):
    """A version of 1 GiB, loaded long ago, last used at `used_s`, with uses of these ages."""
    held: dict[Any, float] = {object(): NOW_S - age for age in uses}
    return Slot(**({"key": (name, "1"), "memory_bytes": GIB, "used_s": used_s, "phase": phase, "uses": held} | fields))


def evicted(slots: list[Slot], limits: LoadLimits, incoming: Slot | None = None) -> tuple[list[str], bool]:
    chosen, fits = choose_evictions(slots, limits, NOW_S, incoming)
    return [each.key[0] for each in chosen], fits


NEW = slot("new", phase=Phase.COLD)
TWO = LoadLimits(models=2)


def test_nothing_is_stopped_while_there_is_room() -> None:
    assert evicted([slot("a")], TWO, NEW) == ([], True)


def test_the_least_recently_used_is_stopped() -> None:
    assert evicted([slot("a", used_s=2), slot("b", used_s=1)], TWO, NEW) == (["b"], True)


@pytest.mark.parametrize(
    "kept",
    [
        slot("b", used_s=1, uses=(0.1,)),
        slot("b", used_s=1, required=True),
        slot("b", used_s=1, phase=Phase.STARTING),
        slot("b", used_s=1, loaded_s=NOW_S - 1.9),
    ],
    ids=["in use", "required", "starting", "just loaded"],
)
def test_it_is_kept(kept: Slot) -> None:
    assert evicted([slot("a", used_s=2), kept], TWO, NEW) == (["a"], True)
    assert evicted([kept], LoadLimits(models=1), NEW) == ([], False)


def test_one_that_stops_makes_room() -> None:
    assert evicted([slot("a"), slot("b", phase=Phase.STOPPING)], TWO, NEW) == ([], True)


def test_memory_is_a_limit_too() -> None:
    slots = [slot("a", used_s=1), slot("b", used_s=2), slot("c", used_s=3)]
    assert evicted(slots, LoadLimits(memory_bytes=4 * GIB), NEW) == ([], True)
    assert evicted(slots, LoadLimits(memory_bytes=3 * GIB), NEW) == (["a"], True)
    assert evicted(slots, LoadLimits(memory_bytes=2 * GIB, models=10), NEW) == (["a", "b"], True)


def test_a_single_one_may_exceed_the_memory() -> None:
    assert evicted([slot("a")], LoadLimits(memory_bytes=1), NEW) == (["a"], True)
    assert evicted([slot("a")], LoadLimits(memory_bytes=1)) == ([], True)


def test_what_was_loaded_beyond_the_limit_is_stopped_once_it_is_free() -> None:
    slots = [slot("a", used_s=1), slot("b", used_s=2, uses=(5.0,)), slot("c", used_s=3)]
    assert evicted(slots, LoadLimits(models=1)) == (["a", "c"], True)
    assert evicted([slot("a", uses=(5.0,)), slot("b", uses=(5.0,))], LoadLimits(models=1)) == ([], False)


def closing(*slots: Slot, waited_s: float = 0.0) -> str | None:
    chosen = choose_closing(slots, NOW_S, waited_s)
    return chosen.key[0] if chosen else None


def test_the_version_loaded_for_longest_is_closed_to_new_uses() -> None:
    assert closing(slot("a", uses=(0.1,), loaded_s=20), slot("b", uses=(0.1,), loaded_s=10)) == "b"


def test_a_version_with_a_long_use_is_not_closed() -> None:
    assert closing(slot("a", uses=(0.1, 1.5))) is None


def test_a_version_is_closed_when_all_its_uses_are_shorter_than_the_wait() -> None:
    assert closing(slot("a", uses=(5.0,)), waited_s=4) is None
    assert closing(slot("a", uses=(5.0,)), waited_s=6) == "a"


@pytest.mark.parametrize("fields", [{"required": True}, {"loaded_s": NOW_S - 1}], ids=["required", "just loaded"])
def test_a_version_that_is_never_stopped_is_not_closed(fields: dict[str, Any]) -> None:
    assert closing(slot("a", uses=(0.1,), **fields)) is None


def test_a_version_that_failed_is_tried_again_after_30_seconds() -> None:
    failed = slot("a", phase=Phase.COLD, required=True, failure="golden samples differ", failed_s=NOW_S)
    assert (failed.retry_after_s(NOW_S + 10), failed.is_wanted(NOW_S + 10)) == (20, False)
    assert (failed.retry_after_s(NOW_S + 30), failed.is_wanted(NOW_S + 30)) == (0, True)


async def test_a_cold_version_is_wanted_by_those_who_wait_and_those_who_hold_it() -> None:
    assert not slot("a", phase=Phase.COLD).is_wanted(NOW_S)
    assert slot("a", phase=Phase.COLD, uses=(1.0,)).is_wanted(NOW_S)
    waiting: dict[Any, Any] = {object(): asyncio.get_running_loop().create_future()}
    assert slot("a", phase=Phase.COLD, waiting=waiting).is_wanted(NOW_S)


def test_the_estimate_counts_every_worker() -> None:
    assert estimate_memory(10, workers=2) == 2 * (256 * 2**20 + 10)
