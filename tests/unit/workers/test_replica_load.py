"""What a replica has in hand: of each target by itself, and nothing once it is done."""

from __future__ import annotations

from service.domain import Call, ModelKey, Operation, Parameters, Target
from service.workers.torchserve.replica import Load

ONE, OTHER = (Target(model=ModelKey(name=name, version="1", digest=""), numerics="") for name in ("one", "other"))


def call(target: Target, cost_s: float) -> Call:
    return Call(target=target, operation=Operation.SAMPLE, parameters=Parameters(), items=(), cost_s=cost_s)


def test_targets_are_counted_by_themselves() -> None:
    load = Load()
    for each in (call(ONE, 0.5), call(ONE, 0.25), call(OTHER, 4)):
        load.add(each)
    assert (load.calls(ONE), load.seconds(ONE)) == (2, 0.75)
    assert (load.calls(OTHER), load.seconds(OTHER)) == (1, 4)


def test_no_rounding_is_left_when_all_are_done() -> None:
    load, calls = Load(), [call(ONE, cost_s) for cost_s in (0.1, 0.2, 0.3)]
    for each in calls:
        load.add(each)
    for each in calls:
        load.remove(each)
    assert (load.calls(ONE), load.seconds(ONE)) == (0, 0)


def test_a_call_of_unknown_cost_weighs_more_than_none_and_less_than_any_known() -> None:
    load = Load()
    load.add(call(ONE, 0))
    assert 0 < load.seconds(ONE) < 0.0001
