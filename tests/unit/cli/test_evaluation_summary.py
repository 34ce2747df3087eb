"""The reason that an evaluation fails a pipeline, without a server."""

import pytest

from fount.cli.evaluation_summary import evaluation_lines, failure, metric_line, verdicts
from fount.evaluation.types import evaluation_info
from fount.v1 import evaluation_pb2

SUCCEEDED = evaluation_pb2.Evaluation.STATE_SUCCEEDED


def outcome(*gates, requested=None, **fields):
    evaluation = evaluation_pb2.Evaluation(id="ev-1", state=SUCCEEDED, gates=gates)
    evaluation.envelope.gates.extend([gate.gate for gate in gates] if requested is None else requested)
    for name, value in fields.items():
        setattr(evaluation, name, value)
    return failure(evaluation_info(evaluation))


def gate(passed, **fields):
    return evaluation_pb2.GateOutcome(gate="fid < 5", passed=passed, **fields)


def test_no_gates_are_no_failure():
    assert outcome() is None


def test_gates_that_pass_are_no_failure():
    assert outcome(gate(True), gates_passed=True) is None


def test_a_gate_that_missed_by_little_is_shown_with_more_digits():
    assert (
        outcome(gate(False, actual=5.00001), gates_passed=False) == "1 of 1 gates failed:\n  fid < 5  (it is 5.00001)"
    )


def test_a_gate_is_shown_with_four_digits():
    assert outcome(gate(False, actual=6.123456), gates_passed=False).endswith("\n  fid < 5  (it is 6.123)")


def test_a_gate_without_a_value_has_its_note():
    failed = gate(False, note="features are not finite")
    assert outcome(failed, gates_passed=False) == "1 of 1 gates failed:\n  fid < 5  (features are not finite)"


@pytest.mark.parametrize(
    ("gates", "requested", "fields"),
    [
        ((), ["fid < 5"], {"gates_passed": True}),
        ((gate(True),), None, {}),
        ((gate(True),), None, {"gates_passed": False}),
    ],
    ids=["no outcome", "no overall outcome", "overall outcome failed"],
)
def test_an_unreported_gate_is_a_failure(gates, requested, fields):
    assert "does not report that every gate passed" in outcome(*gates, requested=requested, **fields)


@pytest.mark.parametrize("state", [0, 1, 2, 4, 5, 9])
def test_every_state_but_success_is_a_failure(state):
    assert outcome(state=state).startswith("Evaluation ev-1 ")


def test_a_metric_without_a_value_is_a_dash():
    info = evaluation_info(evaluation_pb2.Evaluation(metrics=[evaluation_pb2.Metric(name="fid")]))
    assert metric_line(info.metrics[0]) == "fid -"


def test_an_evaluation_without_verdicts_has_a_dash():
    assert verdicts(evaluation_info(evaluation_pb2.Evaluation())) == "-"


def not_measurable():
    note = "7 held-out rows are equal to a training row, pixel for pixel: rows 1, 2."
    reason = "Only 0 held-out rows are left"
    names = ("copy_rate", "nearest_auc")
    unmeasured = evaluation_pb2.VERDICT_NOT_MEASURABLE
    evaluation = evaluation_pb2.Evaluation(
        state=SUCCEEDED,
        metrics=[evaluation_pb2.Metric(name=each, verdict=unmeasured, decides=True, note=reason) for each in names],
        panels=[
            evaluation_pb2.PanelVerdict(panel=each, verdict=unmeasured, sentence="Not measurable: copies.", note=note)
            for each in (evaluation_pb2.PANEL_REALISM, evaluation_pb2.PANEL_MEMORISATION)
        ],
    )
    return list(evaluation_lines(evaluation_info(evaluation)))


def test_what_is_not_measurable_is_written_in_words():
    lines = not_measurable()
    assert lines[-1] == "Overall     not measurable"
    assert "memorisation  not measurable  Not measurable: copies." in lines


def test_leaked_rows_of_several_panels_are_named_once():
    assert not_measurable().count("7 held-out rows are equal to a training row, pixel for pixel: rows 1, 2.") == 1


def test_metrics_without_a_value_for_one_reason_share_a_line():
    assert "copy_rate, nearest_auc: Only 0 held-out rows are left" in not_measurable()
