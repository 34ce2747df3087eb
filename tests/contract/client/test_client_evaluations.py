"""Evaluations through both clients, against a real server that breaks as configured."""

import json
from contextlib import aclosing, closing

import pytest

from fount import Client
from fount.client import aio
from fount.errors import (
    BadReply,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerUnavailable,
)
from fount.evaluation.types import ClassMetricInfo, NullInfo, evaluation_info, evaluation_json
from fount.v1 import evaluation_pb2
from tests.contract.fake_evaluations import (
    CANCELLED,
    FAILED,
    SUCCEEDED,
    FakeEvaluations,
    metrics,
)
from tests.contract.fake_gateway import DIGEST, invalid, overloaded, unavailable


def states(infos):
    return [(info.state, info.progress.done) for info in infos]


# --- Values -----------------------------------------------------------------------------------------------------------


def test_it_decodes_an_evaluation(client_of):
    gateway = FakeEvaluations(failing=frozenset({"fid < 5"}))
    with client_of(gateway) as client:
        info = client.evaluate("digits-cvae", count=500, seed=7, gates=["fid < 5", "kid < 1"], truncation=0.5)
        *_, last = client.watch_evaluation(info.id)
    assert (info.state, info.state_reason, info.is_over, info.gates_passed) == (
        "queued", "waits for a runner", False, None,
    )  # fmt: skip
    assert (last.state, last.is_over, last.gates_passed) == ("succeeded", True, False)
    assert [(gate.gate, gate.passed, gate.actual) for gate in last.gates] == [
        ("fid < 5", False, 0.02),
        ("kid < 1", True, 0.02),
    ]
    assert [(panel.panel, panel.verdict) for panel in last.panels] == [
        ("realism", "worse"),
        ("memorisation", "like-real"),
    ]
    assert (last.ended - last.started).total_seconds() == 125
    assert last.expires is None


def test_it_decodes_the_envelope(client_of):
    with client_of(FakeEvaluations()) as client:
        envelope = client.evaluate("digits-cvae", count=500, seed=7, truncation=0.5, panels=["realism"]).envelope
    assert str(envelope.model) == f"digits-cvae:1.0@{DIGEST}"
    assert (envelope.dataset, envelope.training_split, envelope.held_out_split, envelope.held_out_rows) == (
        "digits", "train", "test", 359,
    )  # fmt: skip
    assert (envelope.count, envelope.seed, envelope.parameters) == (500, 7, {"truncation": 0.5})
    assert envelope.panels == ("realism",)
    assert (envelope.classes, envelope.conditional) == (("zero", "one"), True)


def test_it_decodes_the_interval_and_null_distribution_of_a_metric():
    info = evaluation_info(evaluation_pb2.Evaluation(id="ev-1", metrics=metrics()))
    fid = info.metric("fid")
    assert (fid.value, fid.interval, fid.null) == (
        12.5, (11.0, 14.0), NullInfo(mean=2.0, range=(1.5, 2.5), draws=20, rows=1000),
    )  # fmt: skip
    assert (fid.panel, fid.verdict, fid.decides, fid.better) == ("realism", "worse", False, "lower")


def test_it_returns_none_for_a_value_that_could_not_be_computed():
    kid = evaluation_info(evaluation_pb2.Evaluation(metrics=metrics())).metric("kid")
    assert (kid.value, kid.interval, kid.null, kid.verdict) == (None, None, None, "none")
    assert kid.note == "features are not finite"


def test_it_decodes_the_classes_of_a_metric():
    zero, one = evaluation_info(evaluation_pb2.Evaluation(metrics=metrics())).metric("copy_rate").classes
    assert zero == ClassMetricInfo(class_name="zero", value=0.5, interval=None, null_mean=None, verdict="near-real")
    assert (one.class_name, one.value) == ("one", None)


def test_it_names_the_metrics_when_one_is_unknown():
    info = evaluation_info(evaluation_pb2.Evaluation(metrics=metrics()))
    with pytest.raises(KeyError, match="no metric 'fidd'; there are: fid, kid, copy_rate"):
        info.metric("fidd")


def test_it_returns_unknown_enum_values_by_number():
    message = evaluation_pb2.Evaluation(state=9, panels=[evaluation_pb2.PanelVerdict(panel=8, verdict=7)])
    info = evaluation_info(message)
    assert (info.state, info.is_over, info.panels[0].panel, info.panels[0].verdict) == ("9", False, "8", "7")


def test_a_panel_that_is_not_measurable_has_a_note():
    panel = evaluation_pb2.PanelVerdict(verdict=evaluation_pb2.VERDICT_NOT_MEASURABLE, note="rows 3 and 4")
    (found,) = evaluation_info(evaluation_pb2.Evaluation(panels=[panel])).panels
    assert (found.verdict, found.note) == ("not-measurable", "rows 3 and 4")


def test_it_writes_numbers_that_are_not_finite_as_null():
    metric = evaluation_pb2.Metric(name="effective_size", value=float("nan"))
    metric.interval.max = float("inf")
    evaluation = evaluation_pb2.Evaluation(id="ev-1", metrics=[metric])
    evaluation.create_time.FromSeconds(0)
    document = json.loads(json.dumps(evaluation_json(evaluation_info(evaluation)), allow_nan=False))
    assert (document["metrics"][0]["value"], document["metrics"][0]["interval"]) == (None, [0.0, None])
    assert (document["created"], document["ended"]) == ("1970-01-01T00:00:00+00:00", None)


# --- Calls ------------------------------------------------------------------------------------------------------------


def test_it_repeats_a_call_with_the_same_request_id(client_of):
    gateway = FakeEvaluations(refusals=[unavailable()])
    with client_of(gateway) as client:
        client.evaluate("digits-cvae")
    assert len(gateway.requests) == 2
    assert gateway.requests[0] == gateway.requests[1]
    assert len(gateway.requests[0].request_id) == 32


def test_it_returns_the_earlier_evaluation_of_a_request_id(client_of):
    with client_of(FakeEvaluations()) as client:
        first = client.evaluate("digits-cvae", request_id="release-3")
        assert client.evaluate("digits-cvae", request_id="release-3").id == first.id
        assert client.evaluate("digits-cvae", request_id="release-4").id != first.id


def test_it_reports_every_field_that_the_server_refuses(client_of):
    gateway = FakeEvaluations(refusals=[invalid(gates="does not parse")])
    with client_of(gateway) as client, pytest.raises(InvalidRequest) as error:
        client.evaluate("digits-cvae", gates=["fid"])
    assert error.value.fields == [("gates", "does not parse")]


def test_it_reports_a_full_queue(client_of):
    gateway = FakeEvaluations(refusals=[overloaded(None)])
    with client_of(gateway) as client, pytest.raises(Overloaded):
        client.evaluate("digits-cvae")


def test_it_lists_the_evaluations_of_all_pages(client_of):
    gateway = FakeEvaluations()
    for _ in range(5):
        gateway.make()
    with client_of(gateway) as client:
        assert [info.id for info in client.evaluations()] == ["ev-5", "ev-4", "ev-3", "ev-2", "ev-1"]


def test_it_keeps_the_filter_of_a_list_over_pages(client_of):
    gateway = FakeEvaluations()
    for _ in range(3):
        gateway.make()
    with client_of(gateway) as client:
        client.evaluations(["running"], "digits-cvae")
    assert [(list(request.states), request.model, request.page_token) for request in gateway.listed] == [
        ([2], "digits-cvae", ""),
        ([2], "digits-cvae", "2"),
    ]


def test_it_cancels_and_deletes_an_evaluation(client_of):
    gateway = FakeEvaluations()
    gateway.make()
    with client_of(gateway) as client:
        assert client.cancel_evaluation("ev-1").state == "cancelled"
        assert client.evaluation("ev-1").state_reason == "its owner cancelled it"
        client.delete_evaluation("ev-1")
        with pytest.raises(NotFound, match='no evaluation "ev-1"'):
            client.evaluation("ev-1")


# --- Watches ----------------------------------------------------------------------------------------------------------


def test_it_watches_until_the_evaluation_ends(client_of):
    gateway = FakeEvaluations()
    gateway.make()
    with client_of(gateway) as client:
        infos = list(client.watch_evaluation("ev-1"))
    assert states(infos) == [("queued", 0), ("running", 3), ("succeeded", 10)]
    assert [len(info.metrics) for info in infos] == [0, 1, 3]


@pytest.mark.parametrize(("end", "state"), [(FAILED, "failed"), (CANCELLED, "cancelled")])
def test_it_watches_an_evaluation_that_does_not_succeed(client_of, end, state):
    gateway = FakeEvaluations(end=end, end_reason="why")
    gateway.make()
    with client_of(gateway) as client:
        *_, last = client.watch_evaluation("ev-1")
    assert (last.state, last.state_reason, last.is_over) == (state, "why", True)


def test_it_opens_a_broken_watch_again(client_of):
    gateway = FakeEvaluations(breaks=[1, 2, 1, 2, 1])
    gateway.make()
    with client_of(gateway) as client:
        *_, last = client.watch_evaluation("ev-1")
    assert (last.state, gateway.watched) == ("succeeded", 6)


def test_it_is_complete_when_a_watch_breaks_after_the_end(client_of):
    gateway = FakeEvaluations(states=[(1, 2, "drawing")])
    gateway.states.append((2, 2, ""))
    evaluation = gateway.make(end=SUCCEEDED)
    gateway.states, gateway.breaks = [(0, 0, "")], [1]
    with client_of(gateway) as client:
        infos = list(client.watch_evaluation(evaluation.id))
    assert (states(infos), gateway.watched) == ([("succeeded", 0)], 1)


def test_it_reports_a_server_that_stays_unavailable(client_of):
    gateway = FakeEvaluations(breaks=[1, 0, 0, 0])
    gateway.make()
    with client_of(gateway) as client, pytest.raises(ServerUnavailable, match="draining"):
        list(client.watch_evaluation("ev-1"))
    assert gateway.watched == 4 - 1  # three attempts since the last message


def test_it_refuses_a_watch_that_ends_early(client_of):
    gateway = FakeEvaluations(stops=True)
    gateway.make()
    with client_of(gateway) as client, pytest.raises(BadReply, match="ended before the evaluation did"):
        list(client.watch_evaluation("ev-1"))


def test_it_does_not_cancel_an_evaluation_when_a_watch_is_closed(client_of):
    gateway = FakeEvaluations()
    gateway.make()
    with client_of(gateway) as client:
        with closing(client.watch_evaluation("ev-1")) as infos:
            next(infos)
        assert gateway.cancelled == []
        assert client.evaluation("ev-1").state != "cancelled"


def test_it_reports_an_unknown_evaluation_to_watch(client_of):
    with client_of(FakeEvaluations()) as client, pytest.raises(NotFound, match='no evaluation "ghost"'):
        list(client.watch_evaluation("ghost"))


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_it_joins_the_parts_of_a_report(client_of):
    gateway = FakeEvaluations()
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client:
        report = client.evaluation_report("ev-1")
        assert (report.data, report.redacted) == (b"<html>report</html>", False)
        assert client.evaluation_report("ev-1", "json").data == b'{"report": 1}'


def test_it_reports_that_a_report_is_redacted(client_of):
    gateway = FakeEvaluations(redacted=True)
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client:
        assert client.evaluation_report("ev-1").redacted is True


def test_it_downloads_a_broken_report_again_from_its_first_byte(client_of):
    gateway = FakeEvaluations(report_breaks=[2])
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client:
        assert client.evaluation_report("ev-1").data == b"<html>report</html>"


def test_it_gives_up_on_a_report_that_always_breaks(client_of):
    gateway = FakeEvaluations(report_breaks=[2] * 9)
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client, pytest.raises(ServerUnavailable):
        client.evaluation_report("ev-1")
    assert len(gateway.report_breaks) == 7


def test_it_reports_that_there_is_no_report_yet(client_of):
    gateway = FakeEvaluations()
    gateway.make()
    with client_of(gateway) as client, pytest.raises(FailedPrecondition, match="no report yet"):
        client.evaluation_report("ev-1")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([(b"abc", 4, False)], "ended after 3 of 4 bytes"),
        ([], "ended after 0 of 0 bytes"),
        ([(b"ab", 4, False), (b"cde", 4, False)], "do not belong together"),
        ([(b"ab", 4, False), (b"cd", 5, False)], "do not belong together"),
        ([(b"ab", 4, False), (b"cd", 4, True)], "do not belong together"),
    ],
    ids=["short", "empty", "long", "another size", "another redaction"],
)
def test_it_refuses_a_report_that_contradicts_itself(client_of, monkeypatch, parts, text):
    def answer(self, request, context):
        for data, total, redacted in parts:
            yield evaluation_pb2.GetEvaluationReportResponse(data=data, total_bytes=total, redacted=redacted)

    monkeypatch.setattr(FakeEvaluations, "GetEvaluationReport", answer)
    with client_of(FakeEvaluations()) as client, pytest.raises(BadReply, match=text):
        client.evaluation_report("ev-1")


# --- asyncio ----------------------------------------------------------------------------------------------------------


async def test_it_evaluates_within_an_event_loop(aio_client_of):
    gateway = FakeEvaluations(refusals=[unavailable()], breaks=[1], report_breaks=[1])
    async with aio_client_of(gateway) as client:
        info = await client.evaluate("digits-cvae", gates=["fid < 5"], request_id="one")
        infos = [each async for each in client.watch_evaluation(info.id)]
        report = await client.evaluation_report(info.id, "json")
    assert states(infos)[-1] == ("succeeded", 10)
    assert (report.data, gateway.watched, len(gateway.requests)) == (b'{"report": 1}', 2, 2)


async def test_it_lists_cancels_and_deletes_within_an_event_loop(aio_client_of):
    gateway = FakeEvaluations()
    for _ in range(3):
        gateway.make()
    async with aio_client_of(gateway) as client:
        assert [info.id for info in await client.evaluations(["queued"])] == ["ev-3", "ev-2", "ev-1"]
        assert (await client.cancel_evaluation("ev-1")).state == "cancelled"
        assert (await client.evaluation("ev-1")).state == "cancelled"
        await client.delete_evaluation("ev-1")
        with pytest.raises(NotFound):
            await client.evaluation("ev-1")


async def test_it_can_close_a_watch_within_an_event_loop(aio_client_of):
    gateway = FakeEvaluations()
    gateway.make()
    async with aio_client_of(gateway) as client, aclosing(client.watch_evaluation("ev-1")) as infos:
        assert (await anext(infos)).state == "queued"
    assert gateway.cancelled == []


def test_it_has_the_same_methods_in_both_clients():
    def public(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert len(public(Client)) == 28
    assert public(Client) == public(aio.Client)


async def test_it_checks_arguments_within_an_event_loop(aio_client_of):
    async with aio_client_of(FakeEvaluations()) as client:
        with pytest.raises(InvalidRequest, match="count: is 1; it may be 50 or more"):
            await client.evaluate("digits-cvae", count=1)
