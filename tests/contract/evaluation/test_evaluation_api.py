"""EvaluationService over a real gRPC server: creating, looking up, listing, watching and fetching."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fount.v1 import evaluation_pb2, model_pb2
from service.errors import JobsUnreachable, Overloaded
from service.evaluation.record import Progress, State
from service.evaluation.report.bundle import make_bundle
from service.evaluation.results import ClassValue, GateOutcome, Metric, Null, Panel, PanelResult, Verdict
from tests.contract.evaluation_gateway import EvaluationServer, serve_evaluations, specification

A, B = (("x-subject", "ann"),), (("x-subject", "bob"),)
Evaluation, Get = evaluation_pb2.Evaluation, evaluation_pb2.GetEvaluationRequest
List, Watch = evaluation_pb2.ListEvaluationsRequest, evaluation_pb2.WatchEvaluationRequest
Fetch = evaluation_pb2.GetEvaluationReportRequest
METRIC = Metric(
    name="precision",
    panel=Panel.REALISM,
    value=0.75,
    interval=(0.5, 0.875),
    null=Null(mean=0.9, range=(0.8, 1.0), draws=20, rows=100),
    verdict=Verdict.WORSE,
    decides=True,
    better="higher",
    method="k = 5",
    note="n",
    samples=100,
    classes=(ClassValue(class_name="one", value=None, verdict=Verdict.NONE),),
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[EvaluationServer]:
    async with serve_evaluations(tmp_path) as served:
        yield served


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


async def everything(stream):
    return [each async for each in stream]


# --- Creating ---------------------------------------------------------------------------------------------------------


async def test_an_evaluation_is_queued_with_everything_it_depends_on(served: EvaluationServer) -> None:
    created = await served.create(gates=["precision >= 0.5"])
    envelope = created.envelope
    assert (created.state, created.id, created.request_id) == (Evaluation.STATE_QUEUED, "e0000", "")
    assert (envelope.model.name, envelope.model_numerics, envelope.classifier.name) == (
        "painter",
        "memory",
        "reader",
    )
    assert (envelope.reference.dataset, envelope.reference.held_out_split) == ("small", "test")
    assert (envelope.count, envelope.seed, envelope.training_rows, envelope.conditional) == (100, 1, 60, True)
    assert (list(envelope.panels), list(envelope.gates)) == ([1, 2, 3, 4], ["precision >= 0.5"])
    assert created.HasField("create_time")
    assert not any(created.HasField(each) for each in ("start_time", "end_time", "expire_time", "gates_passed"))


async def test_a_request_id_finds_the_earlier_evaluation_also_without_the_model(served: EvaluationServer) -> None:
    created = await served.create(request_id="release-1")
    served.pool.models.clear()
    again = await served.create(request_id="release-1")
    assert (again.id, again.request_id, len(served.evaluations.records)) == (created.id, "release-1", 1)


async def test_a_request_id_of_a_different_request_is_refused(served: EvaluationServer) -> None:
    await served.create(request_id="release-1")
    code, message = await refusal(served.create(request_id="release-1", count=200))
    assert (code, "request_id: 'release-1' is the request_id of a different request" in message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        True,
    )


async def test_two_callers_may_use_one_request_id(served: EvaluationServer) -> None:
    ours, theirs = await served.create(A, request_id="x"), await served.create(B, request_id="x")
    assert ours.id != theirs.id


async def test_without_a_request_id_every_call_creates_an_evaluation(served: EvaluationServer) -> None:
    assert (await served.create()).id != (await served.create()).id


@pytest.mark.parametrize("wrong", ["a b", "x" * 129, "ä", "a/b"])
async def test_a_request_id_of_other_characters_is_refused(served: EvaluationServer, wrong: str) -> None:
    code, message = await refusal(served.create(request_id=wrong))
    assert (code, message.startswith("request_id: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_full_queue_names_a_delay(served: EvaluationServer) -> None:
    served.evaluations.failure = Overloaded("100 wait", retry_after_s=30)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.create()
    retry = error_details_pb2.RetryInfo()
    details = rpc_status.from_call(error.value).details
    assert (error.value.code(), any(each.Unpack(retry) for each in details)) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        True,
    )
    assert retry.retry_delay.seconds == 30


@pytest.mark.parametrize("missing", ["evaluate", "sample:painter", "dataset:small"])
async def test_each_grant_is_needed(served: EvaluationServer, missing: str) -> None:
    grants = {"evaluate", "sample:painter", "dataset:small"} - {missing}
    reference = evaluation_pb2.Reference(dataset="small")
    code, message = await refusal(served.create((("x-grants", " ".join(grants)),), reference=reference))
    assert (code, f"lacks the grant {missing}" in message) == (grpc.StatusCode.PERMISSION_DENIED, True)


async def test_the_three_grants_are_enough(served: EvaluationServer) -> None:
    metadata = (("x-grants", "evaluate sample:painter dataset:small"),)
    assert (await served.create(metadata)).envelope.reference.dataset == "small"


async def test_calls_are_refused_where_evaluations_are_off(tmp_path: Path) -> None:
    async with serve_evaluations(tmp_path, off=True) as served:
        for call in (served.create(), served.stub.ListEvaluations(List())):
            code, message = await refusal(call)
            assert (code, "evaluations are off" in message, "--jobs sqlite:///PATH" in message) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                True,
                True,
            )


async def test_a_database_that_does_not_answer_is_unavailable_and_the_log_has_the_reason(
    served: EvaluationServer, caplog: pytest.LogCaptureFixture
) -> None:
    served.evaluations.failure = JobsUnreachable('no server at "/run/db/.s.PGSQL.5432" for user "ada"')
    metadata = (("x-request-id", "r1"),)
    code, message = await refusal(served.stub.GetEvaluation(Get(id="e"), metadata=metadata))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert message == ("the database of evaluations does not answer; try again; the log has the reason, request id r1")
    (line,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert line.getMessage() == 'call r1 refused: no server at "/run/db/.s.PGSQL.5432" for user "ada"'


# --- Get, cancel, delete ----------------------------------------------------------------------------------------------


def calls_on(served: EvaluationServer, evaluation_id: str, metadata):
    """Every method that names one evaluation."""
    stub = served.stub
    return {
        "get": stub.GetEvaluation(Get(id=evaluation_id), metadata=metadata),
        "cancel": stub.CancelEvaluation(evaluation_pb2.CancelEvaluationRequest(id=evaluation_id), metadata=metadata),
        "delete": stub.DeleteEvaluation(evaluation_pb2.DeleteEvaluationRequest(id=evaluation_id), metadata=metadata),
        "watch": everything(stub.WatchEvaluation(Watch(id=evaluation_id), metadata=metadata)),
        "report": everything(stub.GetEvaluationReport(Fetch(id=evaluation_id), metadata=metadata)),
    }


async def test_the_evaluations_of_others_are_not_found(served: EvaluationServer) -> None:
    created = await served.create(A)
    for name, call in calls_on(served, created.id, B).items():
        assert (name, (await refusal(call))[0]) == (name, grpc.StatusCode.NOT_FOUND)
    assert (await served.stub.GetEvaluation(Get(id=created.id), metadata=A)).evaluation.id == created.id


async def test_an_id_is_needed(served: EvaluationServer) -> None:
    for name, call in calls_on(served, "", A).items():
        code, message = await refusal(call)
        assert (name, code, message) == (
            name,
            grpc.StatusCode.INVALID_ARGUMENT,
            "id: name an evaluation; `fount evaluations` (ListEvaluations) lists them",
        )


async def test_every_method_needs_the_grant(served: EvaluationServer) -> None:
    created = await served.create(A)
    for name, call in calls_on(served, created.id, (*A, ("x-grants", "sample:*"))).items():
        assert (name, (await refusal(call))[0]) == (name, grpc.StatusCode.PERMISSION_DENIED)


async def test_an_evaluation_has_all_that_is_known(served: EvaluationServer) -> None:
    created = await served.create(gates=["precision > 0.8"])
    served.evaluations.change(
        created.id,
        state=State.SUCCEEDED,
        progress=Progress(stage="done", done=7, total=7, update_unix_s=5.0),
        metrics=(METRIC,),
        panels=(PanelResult(panel=Panel.REALISM, verdict=Verdict.WORSE, sentence="Unlike real rows."),),
        gates=(GateOutcome(gate="precision > 0.8", passed=False, actual=0.75),),
        start_unix_s=2.0,
        end_unix_s=3.5,
        expire_unix_s=4.0,
        report_bytes=9,
    )
    found = (await served.stub.GetEvaluation(Get(id=created.id))).evaluation
    (metric,) = found.metrics
    assert (metric.value, metric.interval.max, metric.null.range.min, metric.null.draws) == (0.75, 0.875, 0.8, 20)
    assert (metric.verdict, metric.decides, metric.better) == (evaluation_pb2.VERDICT_WORSE, True, "higher")
    assert (metric.classes[0].class_name, metric.classes[0].HasField("value")) == ("one", False)
    assert (found.panels[0].sentence, found.gates[0].actual, found.gates_passed) == ("Unlike real rows.", 0.75, False)
    assert (found.progress.done, found.progress.update_time.seconds, found.report_bytes) == (7, 5, 9)
    assert (found.start_time.seconds, found.end_time.nanos, found.expire_time.seconds) == (2, 500_000_000, 4)


async def test_a_panel_that_is_not_measurable_says_so_with_a_note(served: EvaluationServer) -> None:
    created = await served.create()
    panel = PanelResult(panel=Panel.REALISM, verdict=Verdict.NOT_MEASURABLE, sentence="None.", note="rows 3 and 4")
    served.evaluations.change(created.id, state=State.SUCCEEDED, panels=(panel,))
    (found,) = (await served.stub.GetEvaluation(Get(id=created.id))).evaluation.panels
    assert (found.verdict, found.note) == (evaluation_pb2.VERDICT_NOT_MEASURABLE, "rows 3 and 4")


async def test_a_cancelled_evaluation_says_who_cancelled_it(served: EvaluationServer) -> None:
    created = await served.create()
    cancelled = await served.stub.CancelEvaluation(evaluation_pb2.CancelEvaluationRequest(id=created.id))
    assert cancelled.evaluation.state == Evaluation.STATE_CANCELLED
    assert cancelled.evaluation.state_reason == "cancelled by the caller"


async def test_a_deleted_evaluation_is_gone(served: EvaluationServer) -> None:
    created = await served.create()
    await served.stub.DeleteEvaluation(evaluation_pb2.DeleteEvaluationRequest(id=created.id))
    assert (await refusal(served.stub.GetEvaluation(Get(id=created.id))))[0] is grpc.StatusCode.NOT_FOUND


# --- Lists ------------------------------------------------------------------------------------------------------------


async def pages(served: EvaluationServer, **fields) -> list[list[str]]:
    found, token = [], ""
    while True:
        page = await served.stub.ListEvaluations(List(page_token=token, **fields))
        found.append([each.id for each in page.evaluations])
        if not (token := page.next_page_token):
            return found


async def test_pages_are_newest_first_and_end(served: EvaluationServer) -> None:
    for _ in range(5):
        await served.create()
    assert await pages(served, page_size=2) == [["e0004", "e0003"], ["e0002", "e0001"], ["e0000"]]


async def test_a_list_has_verdicts_and_no_metrics(served: EvaluationServer) -> None:
    created = await served.create(gates=["precision >= 0.5"])
    panel = PanelResult(panel=Panel.REALISM, verdict=Verdict.WORSE, sentence="worse")
    gate = GateOutcome(gate="precision >= 0.5", passed=True, actual=0.75)
    served.evaluations.change(created.id, state=State.SUCCEEDED, metrics=(METRIC,), panels=(panel,), gates=(gate,))
    (listed,) = (await served.stub.ListEvaluations(List())).evaluations
    assert len(listed.metrics) == 0
    assert ([each.sentence for each in listed.panels], listed.gates_passed) == (["worse"], True)


async def test_gates_that_were_not_evaluated_do_not_pass(served: EvaluationServer) -> None:
    created = await served.create(gates=["precision > 0"])
    served.evaluations.change(created.id, state=State.SUCCEEDED)
    (listed,) = (await served.stub.ListEvaluations(List())).evaluations
    assert not listed.HasField("gates_passed")


async def test_a_list_is_filtered(served: EvaluationServer) -> None:
    await served.create()
    await served.create(model=model_pb2.ModelRef(name="blind"))
    served.evaluations.change("e0000", state=State.RUNNING)
    assert await pages(served, states=[Evaluation.STATE_RUNNING]) == [["e0000"]]
    assert await pages(served, model="blind") == [["e0001"]]


async def test_large_evaluations_make_shorter_pages(served: EvaluationServer) -> None:
    classes = tuple(f"{'name' * 100}{k}" for k in range(1000))  # 400 kB each
    for _ in range(5):
        await served.evaluations.create("anonymous", specification(classes=classes))
    assert [len(page) for page in await pages(served)] == [2, 2, 1]


async def test_a_page_token_belongs_to_its_filter(served: EvaluationServer) -> None:
    for _ in range(3):
        await served.create()
    token = (await served.stub.ListEvaluations(List(page_size=1))).next_page_token
    code, message = await refusal(served.stub.ListEvaluations(List(page_token=token, model="painter")))
    assert (code, message.startswith("page_token: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_every_wrong_field_of_a_list_is_named(served: EvaluationServer) -> None:
    code, message = await refusal(served.stub.ListEvaluations(List(page_size=-1, page_token="?", states=[1, 99])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [part in message for part in ("page_size: ", "page_token: ", "states[1]: ")] == [True] * 3


# --- Watching ---------------------------------------------------------------------------------------------------------


async def test_a_watch_sends_every_change_and_ends(served: EvaluationServer) -> None:
    created = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=created.id), timeout=20)
    assert (await watch.read()).evaluation.state == Evaluation.STATE_QUEUED
    served.evaluations.change(created.id, state=State.RUNNING, progress=Progress(stage="drawing", done=1, total=9))
    assert (await watch.read()).evaluation.progress.stage == "drawing"
    served.evaluations.change(created.id, state=State.FAILED, reason="no space left")
    assert (await watch.read()).evaluation.state_reason == "no space left"
    assert await watch.read() is grpc.aio.EOF


async def test_a_watch_of_an_ended_evaluation_sends_it_once(served: EvaluationServer) -> None:
    created = await served.create()
    served.evaluations.change(created.id, state=State.CANCELLED)
    assert len(await everything(served.stub.WatchEvaluation(Watch(id=created.id), timeout=20))) == 1


async def test_a_watch_sends_a_message_every_few_seconds(
    served: EvaluationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.rpc.evaluation._MESSAGE_INTERVAL_S", 0.1)
    created = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=created.id), timeout=20)
    first, second = await watch.read(), await asyncio.wait_for(watch.read(), 5)
    assert first == second
    watch.cancel()


async def test_a_watch_of_a_deleted_evaluation_ends_not_found(served: EvaluationServer) -> None:
    created = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=created.id), timeout=20)
    await watch.read()
    del served.evaluations.records[created.id]
    assert (await refusal(watch.read()))[0] is grpc.StatusCode.NOT_FOUND


async def test_a_drain_ends_watches(served: EvaluationServer) -> None:
    created = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=created.id), timeout=20)
    await watch.read()
    served.servicer.drain()
    code, message = await refusal(watch.read())
    assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "the gateway is draining; watch again")


# --- Reports ----------------------------------------------------------------------------------------------------------


async def reported(served: EvaluationServer, sentence: str = "Unlike real rows.") -> str:
    """An evaluation with a report."""
    created = await served.create()
    panel = PanelResult(panel=Panel.REALISM, verdict=Verdict.WORSE, sentence=sentence)
    served.evaluations.bundles[created.id] = make_bundle(
        specification=specification(), metrics=[METRIC], panels=[panel], gates=[], figures={}, failed=0, compared=60,
        real_rows={},
    )  # fmt: skip
    served.evaluations.change(created.id, state=State.SUCCEEDED, end_unix_s=3.0)
    return created.id


async def test_a_json_report_is_one_object(served: EvaluationServer) -> None:
    parts = await everything(served.stub.GetEvaluationReport(Fetch(id=await reported(served)), timeout=20))
    report = json.loads(b"".join(each.data for each in parts))
    assert (report["job"]["id"], report["metrics"][0]["name"]) == ("e0000", "precision")
    assert parts[0].total_bytes == sum(len(each.data) for each in parts)


async def test_an_html_report_is_a_page(served: EvaluationServer) -> None:
    request = Fetch(id=await reported(served), format=Fetch.FORMAT_HTML)
    parts = await everything(served.stub.GetEvaluationReport(request, timeout=20))
    page = b"".join(each.data for each in parts).decode()
    assert (page.lstrip().lower().startswith("<!doctype html>"), "Unlike real rows." in page) == (True, True)


async def test_a_large_report_is_sent_in_parts(served: EvaluationServer) -> None:
    evaluation_id = await reported(served, sentence="x" * (5 << 19))
    parts = await everything(served.stub.GetEvaluationReport(Fetch(id=evaluation_id), timeout=20))
    assert ([len(each.data) for each in parts[:2]], len(parts)) == ([1 << 20, 1 << 20], 3)
    assert {each.total_bytes for each in parts} == {sum(len(each.data) for each in parts)}


@pytest.mark.parametrize(("grants", "redacted"), [("evaluate", True), ("evaluate view-training-neighbours", False)])
async def test_nearest_training_rows_need_a_grant(served: EvaluationServer, grants: str, redacted: bool) -> None:
    metadata = (("x-grants", grants),)
    stream = served.stub.GetEvaluationReport(Fetch(id=await reported(served)), metadata=metadata, timeout=20)
    assert {each.redacted for each in await everything(stream)} == {redacted}


async def test_there_is_no_report_before_success(served: EvaluationServer) -> None:
    created = await served.create()
    assert (await refusal(everything(served.stub.GetEvaluationReport(Fetch(id=created.id)))))[0] is (
        grpc.StatusCode.FAILED_PRECONDITION
    )


async def test_an_unknown_format_is_refused(served: EvaluationServer) -> None:
    code, message = await refusal(everything(served.stub.GetEvaluationReport(Fetch(id="x", format=9))))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "format: 9 is not a Format")


async def test_a_report_of_another_release_is_refused(served: EvaluationServer) -> None:
    evaluation_id = await reported(served)
    served.evaluations.bundles[evaluation_id] = b"other"
    code, message = await refusal(everything(served.stub.GetEvaluationReport(Fetch(id=evaluation_id))))
    assert (code, message.endswith("evaluate again")) == (grpc.StatusCode.FAILED_PRECONDITION, True)
