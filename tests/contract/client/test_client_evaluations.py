"""Both clients' evaluations against a real server that breaks when told."""

import json
from contextlib import aclosing, closing, contextmanager

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
from fount.retry import RetryPolicy
from fount.v1 import evaluation_pb2
from tests.contract.fake_evaluations import (
    CANCELLED,
    FAILED,
    SUCCEEDED,
    FakeEvaluations,
    metrics,
    serving_evaluations,
)
from tests.contract.fake_gateway import DIGEST, invalid, overloaded, unavailable

QUICK = RetryPolicy(first_attempts=2, attempts=3, base_s=0.001)


@contextmanager
def client_of(gateway):
    with serving_evaluations(gateway) as server, Client(server, timeout_s=10, retry=QUICK) as client:
        yield client


@contextmanager
def aio_client_of(gateway):
    with serving_evaluations(gateway) as server:
        yield aio.Client(server, timeout_s=10, retry=QUICK)


def states(looks):
    return [(info.state, info.progress.done) for info in looks]


# --- Values -----------------------------------------------------------------------------------------------------------


def test_an_evaluation_is_read_whole():
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


def test_an_envelope_is_all_that_the_result_depends_on():
    with client_of(FakeEvaluations()) as client:
        asked = client.evaluate("digits-cvae", count=500, seed=7, truncation=0.5, panels=["realism"]).envelope
    assert str(asked.model) == f"digits-cvae:1.0@{DIGEST}"
    assert (asked.dataset, asked.training_split, asked.held_out_split, asked.held_out_rows) == (
        "digits", "train", "test", 359,
    )  # fmt: skip
    assert (asked.count, asked.seed, asked.parameters, asked.panels) == (500, 7, {"truncation": 0.5}, ("realism",))
    assert (asked.classes, asked.conditional) == (("zero", "one"), True)


def test_a_metric_tells_its_interval_and_what_real_data_scores():
    info = evaluation_info(evaluation_pb2.Evaluation(id="ev-1", metrics=metrics()))
    fid = info.metric("fid")
    assert (fid.value, fid.interval, fid.null) == (
        12.5, (11.0, 14.0), NullInfo(mean=2.0, range=(1.5, 2.5), draws=20, rows=1000),
    )  # fmt: skip
    assert (fid.panel, fid.verdict, fid.decides, fid.better) == ("realism", "worse", False, "lower")


def test_what_could_not_be_computed_is_none_and_says_why():
    kid = evaluation_info(evaluation_pb2.Evaluation(metrics=metrics())).metric("kid")
    assert (kid.value, kid.interval, kid.null, kid.verdict) == (None, None, None, "none")
    assert kid.note == "features are not finite"


def test_a_metric_tells_of_its_classes():
    zero, one = evaluation_info(evaluation_pb2.Evaluation(metrics=metrics())).metric("copy_rate").classes
    assert zero == ClassMetricInfo(class_name="zero", value=0.5, interval=None, null_mean=None, verdict="near-real")
    assert (one.class_name, one.value) == ("one", None)


def test_a_metric_that_there_is_not_names_those_there_are():
    info = evaluation_info(evaluation_pb2.Evaluation(metrics=metrics()))
    with pytest.raises(KeyError, match="no metric 'fidd'; there are: fid, kid, copy_rate"):
        info.metric("fidd")


def test_values_of_a_newer_server_are_given_by_number():
    message = evaluation_pb2.Evaluation(state=9, panels=[evaluation_pb2.PanelVerdict(panel=8, verdict=7)])
    info = evaluation_info(message)
    assert (info.state, info.is_over, info.panels[0].panel, info.panels[0].verdict) == ("9", False, "8", "7")


def test_json_holds_no_number_that_is_not_finite():
    metric = evaluation_pb2.Metric(name="effective_size", value=float("nan"))
    metric.interval.max = float("inf")
    evaluation = evaluation_pb2.Evaluation(id="ev-1", metrics=[metric])
    evaluation.create_time.FromSeconds(0)
    told = json.loads(json.dumps(evaluation_json(evaluation_info(evaluation)), allow_nan=False))
    assert (told["metrics"][0]["value"], told["metrics"][0]["interval"]) == (None, [0.0, None])
    assert (told["created"], told["ended"]) == ("1970-01-01T00:00:00+00:00", None)


# --- Asked ------------------------------------------------------------------------------------------------------------


def test_a_call_tried_again_makes_one_evaluation():
    gateway = FakeEvaluations(refusals=[unavailable()])
    with client_of(gateway) as client:
        client.evaluate("digits-cvae")
    assert len(gateway.requests) == 2
    assert gateway.requests[0] == gateway.requests[1]
    assert len(gateway.requests[0].request_id) == 32


def test_the_same_request_id_gives_the_earlier_evaluation():
    with client_of(FakeEvaluations()) as client:
        first = client.evaluate("digits-cvae", request_id="release-3")
        assert client.evaluate("digits-cvae", request_id="release-3").id == first.id
        assert client.evaluate("digits-cvae", request_id="release-4").id != first.id


def test_each_field_the_server_refuses_is_told():
    gateway = FakeEvaluations(refusals=[invalid(gates="does not parse")])
    with client_of(gateway) as client, pytest.raises(InvalidRequest) as error:
        client.evaluate("digits-cvae", gates=["fid"])
    assert error.value.fields == [("gates", "does not parse")]


def test_a_full_queue_is_overload():
    gateway = FakeEvaluations(refusals=[overloaded(None)])
    with client_of(gateway) as client, pytest.raises(Overloaded):
        client.evaluate("digits-cvae")


def test_evaluations_are_listed_over_all_pages():
    gateway = FakeEvaluations()
    for _ in range(5):
        gateway.make()
    with client_of(gateway) as client:
        assert [info.id for info in client.evaluations()] == ["ev-5", "ev-4", "ev-3", "ev-2", "ev-1"]


def test_a_list_keeps_its_filter_over_pages():
    gateway = FakeEvaluations()
    for _ in range(3):
        gateway.make()
    with client_of(gateway) as client:
        client.evaluations(["running"], "digits-cvae")
    assert [(list(request.states), request.model, request.page_token) for request in gateway.listed] == [
        ([2], "digits-cvae", ""),
        ([2], "digits-cvae", "2"),
    ]


def test_an_evaluation_is_cancelled_and_deleted():
    gateway = FakeEvaluations()
    gateway.make()
    with client_of(gateway) as client:
        assert client.cancel_evaluation("ev-1").state == "cancelled"
        assert client.evaluation("ev-1").state_reason == "its owner cancelled it"
        client.delete_evaluation("ev-1")
        with pytest.raises(NotFound, match='no evaluation "ev-1"'):
            client.evaluation("ev-1")


# --- Watched ----------------------------------------------------------------------------------------------------------


def test_a_watch_ends_with_the_evaluation():
    gateway = FakeEvaluations()
    gateway.make()
    with client_of(gateway) as client:
        looks = list(client.watch_evaluation("ev-1"))
    assert states(looks) == [("queued", 0), ("running", 3), ("succeeded", 10)]
    assert [len(info.metrics) for info in looks] == [0, 1, 3]


@pytest.mark.parametrize(("end", "state"), [(FAILED, "failed"), (CANCELLED, "cancelled")])
def test_a_watch_ends_with_an_evaluation_that_does_not_succeed(end, state):
    gateway = FakeEvaluations(end=end, end_reason="why")
    gateway.make()
    with client_of(gateway) as client:
        *_, last = client.watch_evaluation("ev-1")
    assert (last.state, last.state_reason, last.is_over) == (state, "why", True)


def test_a_watch_that_breaks_is_opened_again():
    gateway = FakeEvaluations(breaks=[1, 2, 1, 2, 1])
    gateway.make()
    with client_of(gateway) as client:
        *_, last = client.watch_evaluation("ev-1")
    assert (last.state, gateway.watched) == ("succeeded", 6)


def test_a_break_after_the_end_loses_nothing():
    gateway = FakeEvaluations(looks=[(1, 2, "drawing")])
    gateway.looks.append((2, 2, ""))
    evaluation = gateway.make(end=SUCCEEDED)
    gateway.looks, gateway.breaks = [(0, 0, "")], [1]
    with client_of(gateway) as client:
        looks = list(client.watch_evaluation(evaluation.id))
    assert (states(looks), gateway.watched) == ([("succeeded", 0)], 1)


def test_a_server_that_stays_away_is_told():
    gateway = FakeEvaluations(breaks=[1, 0, 0, 0])
    gateway.make()
    with client_of(gateway) as client, pytest.raises(ServerUnavailable, match="draining"):
        list(client.watch_evaluation("ev-1"))
    assert gateway.watched == 4 - 1  # three attempts since it was heard of


def test_a_watch_that_ends_too_soon_is_a_bad_reply():
    gateway = FakeEvaluations(stops=True)
    gateway.make()
    with client_of(gateway) as client, pytest.raises(BadReply, match="ended before the evaluation did"):
        list(client.watch_evaluation("ev-1"))


def test_leaving_a_watch_leaves_the_evaluation():
    gateway = FakeEvaluations()
    gateway.make()
    with client_of(gateway) as client:
        with closing(client.watch_evaluation("ev-1")) as looks:
            next(looks)
        assert gateway.cancelled == []
        assert client.evaluation("ev-1").state != "cancelled"


def test_an_unknown_evaluation_cannot_be_watched():
    with client_of(FakeEvaluations()) as client, pytest.raises(NotFound, match='no evaluation "ghost"'):
        list(client.watch_evaluation("ghost"))


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_a_report_is_joined_of_its_parts():
    gateway = FakeEvaluations()
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client:
        report = client.evaluation_report("ev-1")
        assert (report.data, report.redacted) == (b"<html>report</html>", False)
        assert client.evaluation_report("ev-1", "json").data == b'{"report": 1}'


def test_a_redacted_report_says_so():
    gateway = FakeEvaluations(redacted=True)
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client:
        assert client.evaluation_report("ev-1").redacted is True


def test_a_report_that_breaks_is_fetched_again_from_its_first_byte():
    gateway = FakeEvaluations(cut=[2])
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client:
        assert client.evaluation_report("ev-1").data == b"<html>report</html>"


def test_a_report_that_breaks_every_time_is_given_up():
    gateway = FakeEvaluations(cut=[2] * 9)
    gateway.make(end=SUCCEEDED)
    with client_of(gateway) as client, pytest.raises(ServerUnavailable):
        client.evaluation_report("ev-1")
    assert len(gateway.cut) == 7


def test_there_is_no_report_before_the_end():
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
def test_a_report_that_contradicts_itself_is_a_bad_reply(monkeypatch, parts, text):
    def answer(self, request, context):
        for data, total, redacted in parts:
            yield evaluation_pb2.GetEvaluationReportResponse(data=data, total_bytes=total, redacted=redacted)

    monkeypatch.setattr(FakeEvaluations, "GetEvaluationReport", answer)
    with client_of(FakeEvaluations()) as client, pytest.raises(BadReply, match=text):
        client.evaluation_report("ev-1")


# --- asyncio ----------------------------------------------------------------------------------------------------------


async def test_the_asyncio_client_evaluates_too():
    gateway = FakeEvaluations(refusals=[unavailable()], breaks=[1], cut=[1])
    with aio_client_of(gateway) as client:
        async with client:
            info = await client.evaluate("digits-cvae", gates=["fid < 5"], request_id="one")
            looks = [each async for each in client.watch_evaluation(info.id)]
            report = await client.evaluation_report(info.id, "json")
    assert states(looks)[-1] == ("succeeded", 10)
    assert (report.data, gateway.watched, len(gateway.requests)) == (b'{"report": 1}', 2, 2)


async def test_the_asyncio_client_lists_cancels_and_deletes():
    gateway = FakeEvaluations()
    for _ in range(3):
        gateway.make()
    with aio_client_of(gateway) as client:
        async with client:
            assert [info.id for info in await client.evaluations(["queued"])] == ["ev-3", "ev-2", "ev-1"]
            assert (await client.cancel_evaluation("ev-1")).state == "cancelled"
            assert (await client.evaluation("ev-1")).state == "cancelled"
            await client.delete_evaluation("ev-1")
            with pytest.raises(NotFound):
                await client.evaluation("ev-1")


async def test_the_asyncio_client_may_leave_a_watch():
    gateway = FakeEvaluations()
    gateway.make()
    with aio_client_of(gateway) as client:
        async with client, aclosing(client.watch_evaluation("ev-1")) as looks:
            assert (await anext(looks)).state == "queued"
    assert gateway.cancelled == []


def test_both_clients_have_the_same_methods():
    def public(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert len(public(Client)) == 20
    assert public(Client) == public(aio.Client)


async def test_the_asyncio_client_refuses_what_the_other_refuses():
    with aio_client_of(FakeEvaluations()) as client:
        async with client:
            with pytest.raises(InvalidRequest, match="count: is 1; it may be 50 or more"):
                await client.evaluate("digits-cvae", count=1)
