"""Evaluations encoded by the gateway and decoded by the client: the same words on both sides."""

import pytest

from fount.evaluation.types import PANELS, STATES, evaluation_info
from service.domain import Parameters
from service.evaluation.record import Record, State
from service.evaluation.results import ClassValue, GateOutcome, Metric, Null, Panel, PanelResult, Verdict
from service.evaluation.specification import PinnedModel, Specification
from service.rpc.evaluation_message import record_to_message


def pinned(name):
    return PinnedModel(name=name, version="1", digest=f"sha256:{name}", numerics="cpu")


def info_of(**fields):
    specification = Specification(
        model=pinned("vae"), model_labels=(1, 0), extractor=pinned("extractor"), classifier=pinned("classifier"),
        classifier_labels=(0, 1), dataset="digits", dataset_digest="sha256:d", training_split="train",
        held_out_split="test", training_rows=7, held_out_rows=3, classes=("a", "b"), image_shape=(8, 8, 1), count=100,
        seed=2**64 - 1, parameters=Parameters(truncation=0.5), panels=tuple(Panel), gates=("fid < 5",),
        code_version="1",
    )  # fmt: skip
    record = {"id": "e1", "subject": "ann", "request_id": "r", "request_digest": "", "create_unix_s": 10.5}
    return evaluation_info(
        record_to_message(Record(**record | {"specification": specification, "state": State.QUEUED} | fields))
    )


def metric(**fields):
    return Metric(**{"name": "fid", "panel": Panel.REALISM, "value": 2.5, "better": "lower", "method": "m"} | fields)


@pytest.mark.parametrize("state", list(State))
def test_it_names_states_alike(state):
    info = info_of(state=state)
    assert (info.state, info.is_over) == (state.value, state.ended)


@pytest.mark.parametrize("panel", list(Panel))
def test_it_names_panels_alike(panel):
    result = PanelResult(panel=panel, verdict=Verdict.WORSE, sentence="s")
    assert info_of(panels=(result,)).panels[0].panel == panel.value
    assert panel.value in PANELS


@pytest.mark.parametrize("verdict", list(Verdict))
def test_it_names_verdicts_alike(verdict):
    assert info_of(metrics=(metric(verdict=verdict),)).metrics[0].verdict == verdict.value


def test_it_names_every_panel_and_state():
    assert (len(PANELS), len(STATES)) == (len(Panel), len(State))


def test_it_decodes_the_specification_as_the_envelope():
    envelope = info_of().envelope
    assert [str(model) for model in (envelope.model, envelope.extractor, envelope.classifier)] == [
        "vae:1@sha256:vae", "extractor:1@sha256:extractor", "classifier:1@sha256:classifier",
    ]  # fmt: skip
    assert (envelope.count, envelope.seed, envelope.parameters, envelope.gates) == (
        100,
        2**64 - 1,
        {"truncation": 0.5},
        ("fid < 5",),
    )
    assert (envelope.training_rows, envelope.held_out_rows, envelope.classes, envelope.conditional) == (
        7,
        3,
        ("a", "b"),
        True,
    )
    assert envelope.panels == ("realism", "diversity", "memorisation", "label-fidelity")


def test_it_decodes_a_metric():
    given = metric(
        interval=(1.0, 4.0), null=Null(mean=1.5, range=(1.0, 2.0), draws=9, rows=50), decides=True, note="n",
        samples=100,
        classes=(ClassValue(class_name="a", value=None), ClassValue(class_name="b", value=0.0, null_mean=0.0)),
    )  # fmt: skip
    read = info_of(metrics=(given,)).metric("fid")
    assert (read.value, read.interval, read.decides, read.note, read.samples) == (2.5, (1.0, 4.0), True, "n", 100)
    assert (read.null.mean, read.null.range, read.null.draws, read.null.rows) == (1.5, (1.0, 2.0), 9, 50)
    assert [(each.class_name, each.value, each.null_mean) for each in read.classes] == [("a", None, None), ("b", 0, 0)]


@pytest.mark.parametrize(
    ("state", "passed", "expected"),
    [(State.SUCCEEDED, True, True), (State.SUCCEEDED, False, False), (State.RUNNING, True, None)],
)
def test_it_reports_whether_gates_passed_only_at_the_end(state, passed, expected):
    outcome = GateOutcome(gate="fid < 5", passed=passed, actual=2.5)
    info = info_of(state=state, gates=(outcome,) if state is State.SUCCEEDED else ())
    assert info.gates_passed is expected
    assert [gate.actual for gate in info.gates] == ([2.5] if state is State.SUCCEEDED else [])


def test_it_returns_none_for_unknown_times():
    info = info_of(start_unix_s=12.0)
    assert (info.started - info.created).total_seconds() == 1.5
    assert (info.ended, info.expires, info.progress.updated) == (None, None, None)
