"""What a pipeline is told of an evaluation, without a server."""

import pytest

from fount.cli.evaluation_table import metric_line, outcome_problem, verdicts
from fount.evaluation.types import evaluation_info
from fount.v1 import evaluation_pb2

SUCCEEDED = evaluation_pb2.Evaluation.STATE_SUCCEEDED


def outcome(*gates, asked=None, **fields):
    evaluation = evaluation_pb2.Evaluation(id="ev-1", state=SUCCEEDED, gates=gates)
    evaluation.envelope.gates.extend([gate.gate for gate in gates] if asked is None else asked)
    for name, value in fields.items():
        setattr(evaluation, name, value)
    return outcome_problem(evaluation_info(evaluation))


def gate(passed, **fields):
    return evaluation_pb2.GateOutcome(gate="fid < 5", passed=passed, **fields)


def test_no_gates_are_no_problem():
    assert outcome() is None


def test_gates_that_pass_are_no_problem():
    assert outcome(gate(True), gates_passed=True) is None


def test_a_gate_that_missed_by_little_is_told_with_its_digits():
    assert (
        outcome(gate(False, actual=5.00001), gates_passed=False) == "1 of 1 gates failed:\n  fid < 5  (it is 5.00001)"
    )


def test_a_gate_is_told_with_four_digits():
    assert outcome(gate(False, actual=6.123456), gates_passed=False).endswith("\n  fid < 5  (it is 6.123)")


def test_a_gate_without_a_number_says_why():
    failed = gate(False, note="features are not finite")
    assert outcome(failed, gates_passed=False) == "1 of 1 gates failed:\n  fid < 5  (features are not finite)"


@pytest.mark.parametrize(
    ("gates", "asked", "fields"),
    [
        ((), ["fid < 5"], {"gates_passed": True}),
        ((gate(True),), None, {}),
        ((gate(True),), None, {"gates_passed": False}),
    ],
    ids=["no outcome", "nothing said of all", "all said to fail"],
)
def test_what_does_not_say_that_every_gate_passed_is_a_problem(gates, asked, fields):
    assert "does not say of every gate that it passed" in outcome(*gates, asked=asked, **fields)


@pytest.mark.parametrize("state", [0, 1, 2, 4, 5, 9])
def test_every_state_but_success_is_a_problem(state):
    assert outcome(state=state).startswith("Evaluation ev-1 ")


def test_a_metric_without_a_number_is_a_dash():
    info = evaluation_info(evaluation_pb2.Evaluation(metrics=[evaluation_pb2.Metric(name="fid")]))
    assert metric_line(info.metrics[0]) == "fid -"


def test_an_evaluation_without_verdicts_has_a_dash():
    assert verdicts(evaluation_info(evaluation_pb2.Evaluation())) == "-"
