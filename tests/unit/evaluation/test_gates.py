"""Gates: parsing, refusals, and evaluation."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from service.evaluation.panels.gates import evaluate_gate, parse_gate
from service.evaluation.panels.registry import METRICS
from service.evaluation.results import ClassValue, Metric, Null, Panel, Verdict


def metric(name: str = "copy_rate", value: float | None = 0.02, interval=(0.01, 0.03), note: str = "", classes=()):
    null = Null(mean=0.005, range=(0.0, 0.01), draws=0, rows=10)
    return Metric(
        name=name, panel=METRICS[name], value=value, interval=interval, null=null, better="lower", method="counted",
        note=note, classes=tuple(classes),
    )  # fmt: skip


NUMBERED = metric(
    "recall",
    classes=[ClassValue(class_name=name, value=number) for name, number in (("1", 0.25), ("0", 0.5), ("a", 0.75))],
)


@pytest.mark.parametrize(("name", "value"), [("1", 0.25), ("#1", 0.5), ("2", 0.75), ("a", 0.75), ("#2", 0.75)])
def test_its_class_is_a_name_first_and_then_an_index(name: str, value: float) -> None:
    assert evaluate_gate(parse_gate(f"recall[{name}] > 0.1"), [NUMBERED]).actual == value


RECALLS = metric(
    "recall",
    classes=(
        ClassValue(class_name="7", value=0.5, interval=(0.4, 0.6), null_mean=0.9),
        ClassValue(class_name="a < b.value", value=None),
    ),
)


@pytest.mark.parametrize(
    ("text", "metric_name", "class_name", "field", "op", "number"),
    [
        ("copy_rate < 0.01", "copy_rate", None, "value", "<", 0.01),
        ("copy_rate.upper95<0.01", "copy_rate", None, "upper95", "<", 0.01),
        ("  fid.null_mean  >=  -1e-3 ", "fid", None, "null_mean", ">=", -0.001),
        ("effective_size.lower95 > 50000", "effective_size", None, "lower95", ">", 50000.0),
        ("recall[7] <= .5", "recall", "7", "value", "<=", 0.5),
        ("recall[ a b ].lower95 > 1.", "recall", " a b ", "lower95", ">", 1.0),
        ("recall[a < b.value].upper95 >= 0.2", "recall", "a < b.value", "upper95", ">=", 0.2),
        ("recall[ü[x] > 0", "recall", "ü[x", "value", ">", 0.0),
        ("recall[u\u0308] > 0", "recall", "\u00fc", "value", ">", 0.0),
    ],
)
def test_it_parses(text: str, metric_name: str, class_name: str | None, field: str, op: str, number: float) -> None:
    gate = parse_gate(text)
    assert (gate.metric, gate.class_name, gate.field, gate.op, gate.number) == (
        metric_name, class_name, field, op, number
    )  # fmt: skip
    assert gate.text == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "compares nothing"),
        ("copy_rate", "compares nothing"),
        ("copy_rate == 0.01", "write one of < <= > >="),
        ("copy_rate = 0.01", "write one of < <= > >="),
        ("copy_rate =< 0.01", "write one of < <= > >="),
        ("copy_rates < 0.01", "did you mean 'copy_rate'?"),
        ("FID < 3", "did you mean 'fid'?"),
        ("copy_rate.upper < 0.01", "did you mean 'upper95'?"),
        ("copy_rate.upper95 < 1 %", "'1 %' is not a number"),
        ("copy_rate < 1%", "'1%' is not a number"),
        ("copy_rate < ", "'' is not a number"),
        ("copy_rate < nan", "'nan' is not a number"),
        ("copy_rate < inf", "'inf' is not a number"),
        ("copy_rate < 1e999", "too large for a number"),
        ("0.01 > copy_rate", "does not name one metric"),
        ("copy rate < 0.01", "does not name one metric"),
        ("0 < copy_rate < 0.01", "does not name one metric"),
        ("recall[7 < 0.5", "does not name one metric"),
        ("fid[7] < 0.5", "fid is not computed by class"),
        ("< 0.5", "does not name one metric"),
    ],
)
def test_it_refuses_invalid_text_and_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_gate(text)


@pytest.mark.parametrize(
    ("text", "passed", "actual"),
    [
        ("copy_rate < 0.03", True, 0.02),
        ("copy_rate < 0.02", False, 0.02),
        ("copy_rate <= 0.02", True, 0.02),
        ("copy_rate > 0.02", False, 0.02),
        ("copy_rate >= 0.02", True, 0.02),
        ("copy_rate.lower95 > 0.005", True, 0.01),
        ("copy_rate.upper95 < 0.01", False, 0.03),
        ("copy_rate.null_mean < 0.01", True, 0.005),
    ],
)
def test_it_compares_the_named_number(text: str, passed: bool, actual: float) -> None:
    outcome = evaluate_gate(parse_gate(text), [RECALLS, metric()])
    assert (outcome.gate, outcome.passed, outcome.actual, outcome.note) == (text, passed, actual, "")


def test_it_compares_a_number_within_a_class() -> None:
    assert evaluate_gate(parse_gate("recall[7].lower95 > 0.3"), [RECALLS]).passed
    assert evaluate_gate(parse_gate("recall[7].null_mean > 0.8"), [RECALLS]).actual == 0.9


def test_it_fails_with_a_reason_when_the_number_could_not_be_computed() -> None:
    outcome = evaluate_gate(parse_gate("copy_rate < 1"), [metric(value=None, interval=None, note="too few rows")])
    assert (outcome.passed, outcome.actual, outcome.note) == (False, None, "too few rows")
    outcome = evaluate_gate(parse_gate("recall[a < b.value] > 0"), [RECALLS])
    assert not outcome.passed
    assert "too few samples" in outcome.note


def test_it_compares_a_bound_of_a_metric_without_a_value() -> None:
    assert evaluate_gate(parse_gate("effective_size.lower95 > 5"), [metric("effective_size", None, (9.0, 1e15))]).passed


def test_it_fails_on_an_unknown_class_and_lists_the_known_ones() -> None:
    outcome = evaluate_gate(parse_gate("recall[9] > 0"), [RECALLS])
    assert not outcome.passed
    assert "no class '9'" in outcome.note
    assert "7" in outcome.note


def test_it_fails_on_a_metric_whose_panel_was_not_requested() -> None:
    outcome = evaluate_gate(parse_gate("fid < 1"), [metric()])
    assert not outcome.passed
    assert "realism panel was not requested" in outcome.note


def test_it_knows_the_panel_of_its_metric() -> None:
    assert parse_gate("label_agreement > 0.9").panel is Panel.LABEL_FIDELITY


def test_it_gives_the_reason_of_a_metric_that_is_not_measurable_also_within_a_class() -> None:
    unmeasured = ClassValue(class_name="7", value=None)
    of = replace(metric("recall", None, None, "rows leaked", [unmeasured]), verdict=Verdict.NOT_MEASURABLE, null=None)
    found = [evaluate_gate(parse_gate(each), [of]) for each in ("recall.null_mean > 0", "recall[7] > 0")]
    assert [(each.passed, each.note) for each in found] == [(False, "rows leaked")] * 2
