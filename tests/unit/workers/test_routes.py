"""The load and the capacity of a route."""

from __future__ import annotations

import pytest

from service.calls import Call
from service.domain import ModelKey, Operation, Parameters, Target
from service.workers.torchserve.routes import Route

TARGET = Target(model=ModelKey(name="one", version="1", digest=""), numerics="")


def route(*costs: float | None, workers: int = 1) -> Route:
    each = Route()
    each.workers = workers
    each.calls += [
        Call(target=TARGET, operation=Operation.SAMPLE, parameters=Parameters(), items=(), cost_s=cost_s)
        for cost_s in costs
    ]
    return each


def test_it_accepts_two_calls_a_worker() -> None:
    assert [route(*costs, workers=2).capacity for costs in ((), (1,), (1,) * 4, (1,) * 5)] == [4, 3, 0, 0]


def test_its_load_is_the_cost_for_each_worker() -> None:
    assert route(0.5, 0.25, workers=2).load_s == 0.375


def test_no_rounding_error_remains_when_all_calls_have_ended() -> None:
    each = route(0.1, 0.2, 0.3)
    each.calls.clear()
    assert each.load_s == 0


def test_a_call_of_unknown_cost_counts_more_than_none_and_less_than_any_known_one() -> None:
    assert 0 < route(None).load_s < 0.0001


async def test_it_leads_nowhere_after_it_is_closed() -> None:
    each = route(workers=2)
    await each.close()
    assert each.capacity == 0
    with pytest.raises(NotImplementedError):
        await each.call(route(1).calls[0], 1)
