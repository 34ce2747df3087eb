"""EvaluationService over a real gRPC server: what is kept, who sees it, and how it is watched and fetched."""

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
from tests.contract.evaluation_gateway import Evaluating, evaluating, specification

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
async def served(tmp_path: Path) -> AsyncIterator[Evaluating]:
    async with evaluating(tmp_path) as served:
        yield served


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


async def everything(stream):
    return [each async for each in stream]


# --- Creating ---------------------------------------------------------------------------------------------------------


async def test_an_evaluation_is_queued_with_all_it_depends_on(served: Evaluating) -> None:
    made = await served.create(gates=["precision >= 0.5"])
    envelope = made.envelope
    assert (made.state, made.id, made.request_id) == (Evaluation.STATE_QUEUED, "e0000", "")
    assert (envelope.model.name, envelope.model_numerics, envelope.classifier.name) == ("painter", "memory", "judge")
    assert (envelope.reference.dataset, envelope.reference.held_out_split) == ("small", "test")
    assert (envelope.count, envelope.seed, envelope.training_rows, envelope.conditional) == (100, 1, 60, True)
    assert (list(envelope.panels), list(envelope.gates)) == ([1, 2, 3, 4], ["precision >= 0.5"])
    assert made.HasField("create_time")
    assert not any(made.HasField(each) for each in ("start_time", "end_time", "expire_time", "gates_passed"))


async def test_a_request_id_finds_the_earlier_one_also_when_the_model_is_gone(served: Evaluating) -> None:
    made = await served.create(request_id="release-1")
    served.pool.models.clear()
    again = await served.create(request_id="release-1")
    assert (again.id, again.request_id, len(served.kept.records)) == (made.id, "release-1", 1)


async def test_a_request_id_of_another_request_is_refused(served: Evaluating) -> None:
    await served.create(request_id="release-1")
    code, told = await refusal(served.create(request_id="release-1", count=200))
    assert (code, "request_id: 'release-1' was the request_id of another request" in told) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        True,
    )


async def test_two_callers_may_use_one_request_id(served: Evaluating) -> None:
    ours, theirs = await served.create(A, request_id="x"), await served.create(B, request_id="x")
    assert ours.id != theirs.id


async def test_without_a_request_id_every_call_makes_a_new_one(served: Evaluating) -> None:
    assert (await served.create()).id != (await served.create()).id


@pytest.mark.parametrize("wrong", ["a b", "x" * 129, "ä", "a/b"])
async def test_a_request_id_of_other_characters_is_refused(served: Evaluating, wrong: str) -> None:
    code, told = await refusal(served.create(request_id=wrong))
    assert (code, told.startswith("request_id: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_full_queue_says_when_to_come_again(served: Evaluating) -> None:
    served.kept.failure = Overloaded("100 wait", retry_after_s=30)
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
async def test_each_grant_is_needed(served: Evaluating, missing: str) -> None:
    grants = {"evaluate", "sample:painter", "dataset:small"} - {missing}
    reference = evaluation_pb2.Reference(dataset="small")
    code, told = await refusal(served.create((("x-grants", " ".join(grants)),), reference=reference))
    assert (code, f"lacks the grant {missing}" in told) == (grpc.StatusCode.PERMISSION_DENIED, True)


async def test_the_three_grants_are_enough(served: Evaluating) -> None:
    metadata = (("x-grants", "evaluate sample:painter dataset:small"),)
    assert (await served.create(metadata)).envelope.reference.dataset == "small"


async def test_nothing_is_evaluated_where_evaluations_are_off(tmp_path: Path) -> None:
    async with evaluating(tmp_path, off=True) as served:
        for call in (served.create(), served.stub.ListEvaluations(List())):
            code, told = await refusal(call)
            assert (code, "evaluations are off" in told, "--jobs sqlite:///PATH" in told) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                True,
                True,
            )


async def test_a_database_that_does_not_answer_is_unavailable(served: Evaluating) -> None:
    served.kept.failure = JobsUnreachable("the database does not answer")
    assert (await refusal(served.stub.GetEvaluation(Get(id="e"))))[0] is grpc.StatusCode.UNAVAILABLE


# --- Looking ----------------------------------------------------------------------------------------------------------


def calls_on(served: Evaluating, evaluation_id: str, metadata):
    """Every method that names one evaluation."""
    stub = served.stub
    return {
        "get": stub.GetEvaluation(Get(id=evaluation_id), metadata=metadata),
        "cancel": stub.CancelEvaluation(evaluation_pb2.CancelEvaluationRequest(id=evaluation_id), metadata=metadata),
        "delete": stub.DeleteEvaluation(evaluation_pb2.DeleteEvaluationRequest(id=evaluation_id), metadata=metadata),
        "watch": everything(stub.WatchEvaluation(Watch(id=evaluation_id), metadata=metadata)),
        "report": everything(stub.GetEvaluationReport(Fetch(id=evaluation_id), metadata=metadata)),
    }


async def test_someone_else_s_is_not_found(served: Evaluating) -> None:
    made = await served.create(A)
    for name, call in calls_on(served, made.id, B).items():
        assert (name, (await refusal(call))[0]) == (name, grpc.StatusCode.NOT_FOUND)
    assert (await served.stub.GetEvaluation(Get(id=made.id), metadata=A)).evaluation.id == made.id


async def test_an_id_is_needed(served: Evaluating) -> None:
    for name, call in calls_on(served, "", A).items():
        code, told = await refusal(call)
        assert (name, code, told) == (
            name,
            grpc.StatusCode.INVALID_ARGUMENT,
            "id: name an evaluation; ListEvaluations lists them",
        )


async def test_every_method_needs_the_grant(served: Evaluating) -> None:
    made = await served.create(A)
    for name, call in calls_on(served, made.id, (*A, ("x-grants", "sample:*"))).items():
        assert (name, (await refusal(call))[0]) == (name, grpc.StatusCode.PERMISSION_DENIED)


async def test_what_is_known_is_told(served: Evaluating) -> None:
    made = await served.create(gates=["precision > 0.8"])
    served.kept.change(
        made.id,
        state=State.SUCCEEDED,
        progress=Progress(stage="done", done=7, total=7, update_unix_s=5.0),
        metrics=(METRIC,),
        panels=(PanelResult(panel=Panel.REALISM, verdict=Verdict.WORSE, sentence="Told apart."),),
        gates=(GateOutcome(gate="precision > 0.8", passed=False, actual=0.75),),
        start_unix_s=2.0,
        end_unix_s=3.5,
        expire_unix_s=4.0,
        report_bytes=9,
    )
    told = (await served.stub.GetEvaluation(Get(id=made.id))).evaluation
    (metric,) = told.metrics
    assert (metric.value, metric.interval.max, metric.null.range.min, metric.null.draws) == (0.75, 0.875, 0.8, 20)
    assert (metric.verdict, metric.decides, metric.better) == (evaluation_pb2.VERDICT_WORSE, True, "higher")
    assert (metric.classes[0].class_name, metric.classes[0].HasField("value")) == ("one", False)
    assert (told.panels[0].sentence, told.gates[0].actual, told.gates_passed) == ("Told apart.", 0.75, False)
    assert (told.progress.done, told.progress.update_time.seconds, told.report_bytes) == (7, 5, 9)
    assert (told.start_time.seconds, told.end_time.nanos, told.expire_time.seconds) == (2, 500_000_000, 4)


async def test_one_that_was_cancelled_says_so(served: Evaluating) -> None:
    made = await served.create()
    cancelled = await served.stub.CancelEvaluation(evaluation_pb2.CancelEvaluationRequest(id=made.id))
    assert cancelled.evaluation.state == Evaluation.STATE_CANCELLED
    assert cancelled.evaluation.state_reason == "somebody cancelled it"


async def test_one_that_was_deleted_is_gone(served: Evaluating) -> None:
    made = await served.create()
    await served.stub.DeleteEvaluation(evaluation_pb2.DeleteEvaluationRequest(id=made.id))
    assert (await refusal(served.stub.GetEvaluation(Get(id=made.id))))[0] is grpc.StatusCode.NOT_FOUND


# --- Lists ------------------------------------------------------------------------------------------------------------


async def pages(served: Evaluating, **fields) -> list[list[str]]:
    found, token = [], ""
    while True:
        page = await served.stub.ListEvaluations(List(page_token=token, **fields))
        found.append([each.id for each in page.evaluations])
        if not (token := page.next_page_token):
            return found


async def test_pages_are_newest_first_and_end(served: Evaluating) -> None:
    for _ in range(5):
        await served.create()
    assert await pages(served, page_size=2) == [["e0004", "e0003"], ["e0002", "e0001"], ["e0000"]]


async def test_a_list_leaves_metrics_out_and_tells_verdicts(served: Evaluating) -> None:
    made = await served.create(gates=["precision >= 0.5"])
    panel = PanelResult(panel=Panel.REALISM, verdict=Verdict.WORSE, sentence="worse")
    gate = GateOutcome(gate="precision >= 0.5", passed=True, actual=0.75)
    served.kept.change(made.id, state=State.SUCCEEDED, metrics=(METRIC,), panels=(panel,), gates=(gate,))
    (listed,) = (await served.stub.ListEvaluations(List())).evaluations
    assert len(listed.metrics) == 0
    assert ([each.sentence for each in listed.panels], listed.gates_passed) == (["worse"], True)


async def test_gates_that_a_list_does_not_know_are_not_said_to_pass(served: Evaluating) -> None:
    made = await served.create(gates=["precision > 0"])
    served.kept.change(made.id, state=State.SUCCEEDED)
    (listed,) = (await served.stub.ListEvaluations(List())).evaluations
    assert not listed.HasField("gates_passed")


async def test_a_list_is_filtered(served: Evaluating) -> None:
    await served.create()
    await served.create(model=model_pb2.ModelRef(name="blind"))
    served.kept.change("e0000", state=State.RUNNING)
    assert await pages(served, states=[Evaluation.STATE_RUNNING]) == [["e0000"]]
    assert await pages(served, model="blind") == [["e0001"]]


async def test_large_evaluations_make_shorter_pages(served: Evaluating) -> None:
    classes = tuple(f"{'name' * 100}{k}" for k in range(1000))  # 400 kB each
    for _ in range(5):
        await served.kept.create("anonymous", specification(classes=classes))
    assert [len(page) for page in await pages(served)] == [2, 2, 1]


async def test_a_token_is_for_its_own_filter(served: Evaluating) -> None:
    for _ in range(3):
        await served.create()
    token = (await served.stub.ListEvaluations(List(page_size=1))).next_page_token
    code, told = await refusal(served.stub.ListEvaluations(List(page_token=token, model="painter")))
    assert (code, told.startswith("page_token: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_everything_wrong_with_a_list_is_named(served: Evaluating) -> None:
    code, told = await refusal(served.stub.ListEvaluations(List(page_size=-1, page_token="?", states=[1, 99])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [part in told for part in ("page_size: ", "page_token: ", "states[1]: ")] == [True] * 3


# --- Watching ---------------------------------------------------------------------------------------------------------


async def test_a_watch_tells_every_change_and_ends(served: Evaluating) -> None:
    made = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=made.id), timeout=20)
    assert (await watch.read()).evaluation.state == Evaluation.STATE_QUEUED
    served.kept.change(made.id, state=State.RUNNING, progress=Progress(stage="drawing", done=1, total=9))
    assert (await watch.read()).evaluation.progress.stage == "drawing"
    served.kept.change(made.id, state=State.FAILED, reason="no space left")
    assert (await watch.read()).evaluation.state_reason == "no space left"
    assert await watch.read() is grpc.aio.EOF


async def test_a_watch_of_one_that_ended_tells_it_once(served: Evaluating) -> None:
    made = await served.create()
    served.kept.change(made.id, state=State.CANCELLED)
    assert len(await everything(served.stub.WatchEvaluation(Watch(id=made.id), timeout=20))) == 1


async def test_a_watch_is_never_silent_for_long(served: Evaluating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.rpc.evaluation._SAY_S", 0.1)
    made = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=made.id), timeout=20)
    first, second = await watch.read(), await asyncio.wait_for(watch.read(), 5)
    assert first == second
    watch.cancel()


async def test_a_watch_of_one_that_is_deleted_meanwhile_ends_not_found(served: Evaluating) -> None:
    made = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=made.id), timeout=20)
    await watch.read()
    del served.kept.records[made.id]
    assert (await refusal(watch.read()))[0] is grpc.StatusCode.NOT_FOUND


async def test_a_drain_ends_watches(served: Evaluating) -> None:
    made = await served.create()
    watch = served.stub.WatchEvaluation(Watch(id=made.id), timeout=20)
    await watch.read()
    served.servicer.drain()
    code, told = await refusal(watch.read())
    assert (code, told) == (grpc.StatusCode.UNAVAILABLE, "the gateway is draining; watch again")


# --- Reports ----------------------------------------------------------------------------------------------------------


async def reported(served: Evaluating, sentence: str = "Told apart.") -> str:
    """An evaluation with a report."""
    made = await served.create()
    panel = PanelResult(panel=Panel.REALISM, verdict=Verdict.WORSE, sentence=sentence)
    served.kept.bundles[made.id] = make_bundle(
        specification=specification(), metrics=[METRIC], panels=[panel], gates=[], figures={}, failed=0, compared=60
    )
    served.kept.change(made.id, state=State.SUCCEEDED, end_unix_s=3.0)
    return made.id


async def test_a_json_report_is_one_object(served: Evaluating) -> None:
    parts = await everything(served.stub.GetEvaluationReport(Fetch(id=await reported(served)), timeout=20))
    report = json.loads(b"".join(each.data for each in parts))
    assert (report["job"]["id"], report["metrics"][0]["name"]) == ("e0000", "precision")
    assert parts[0].total_bytes == sum(len(each.data) for each in parts)


async def test_an_html_report_is_a_page(served: Evaluating) -> None:
    asked = Fetch(id=await reported(served), format=Fetch.FORMAT_HTML)
    parts = await everything(served.stub.GetEvaluationReport(asked, timeout=20))
    page = b"".join(each.data for each in parts).decode()
    assert (page.lstrip().lower().startswith("<!doctype html>"), "Told apart." in page) == (True, True)


async def test_a_large_report_comes_in_parts(served: Evaluating) -> None:
    evaluation_id = await reported(served, sentence="x" * (5 << 19))
    parts = await everything(served.stub.GetEvaluationReport(Fetch(id=evaluation_id), timeout=20))
    assert ([len(each.data) for each in parts[:2]], len(parts)) == ([1 << 20, 1 << 20], 3)
    assert {each.total_bytes for each in parts} == {sum(len(each.data) for each in parts)}


@pytest.mark.parametrize(("grants", "redacted"), [("evaluate", True), ("evaluate view-training-neighbours", False)])
async def test_nearest_training_rows_need_a_grant(served: Evaluating, grants: str, redacted: bool) -> None:
    metadata = (("x-grants", grants),)
    stream = served.stub.GetEvaluationReport(Fetch(id=await reported(served)), metadata=metadata, timeout=20)
    assert {each.redacted for each in await everything(stream)} == {redacted}


async def test_there_is_no_report_before_it_has_succeeded(served: Evaluating) -> None:
    made = await served.create()
    assert (await refusal(everything(served.stub.GetEvaluationReport(Fetch(id=made.id)))))[0] is (
        grpc.StatusCode.FAILED_PRECONDITION
    )


async def test_an_unknown_format_is_refused(served: Evaluating) -> None:
    code, told = await refusal(everything(served.stub.GetEvaluationReport(Fetch(id="x", format=9))))
    assert (code, told) == (grpc.StatusCode.INVALID_ARGUMENT, "format: 9 is not a Format")


async def test_a_report_of_another_release_says_to_evaluate_again(served: Evaluating) -> None:
    evaluation_id = await reported(served)
    served.kept.bundles[evaluation_id] = b"other"
    code, told = await refusal(everything(served.stub.GetEvaluationReport(Fetch(id=evaluation_id))))
    assert (code, told.endswith("evaluate again")) == (grpc.StatusCode.FAILED_PRECONDITION, True)
