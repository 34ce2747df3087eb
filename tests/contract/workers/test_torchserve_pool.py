"""The pool over one TorchServe: the meaning of its statuses, and when workers count as ready."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.calls import Rows
from service.domain import ModelState, Target
from service.errors import NotReady, TooLate, WorkerBusy, WorkerFault, WorkerLost
from service.workers.torchserve.pool import TorchServePool
from tests.contract.fake_torchserve import (
    NO_WORKER,
    FakeTorchServe,
    description,
    ready_target,
    rows,
    running,
    sample_call,
    started_pool,
)
from tests.waiting import until


@pytest.fixture
def fake() -> FakeTorchServe:
    return FakeTorchServe()


@pytest.fixture
async def pool(fake: FakeTorchServe):
    async with started_pool(fake) as pool:
        await until(lambda: any(offer.state is not ModelState.LOADING for offer in pool.offers()))
        yield pool


async def test_the_offer_of_a_worker_has_its_description(pool: TorchServePool) -> None:
    offer = pool.offers()[0]
    assert (offer.name, offer.version, offer.numerics, offer.workers) == ("toy", "1", "avx2", 1)
    assert offer.model is not None
    assert offer.model.value_range == (-1, 1)


async def test_an_offer_has_the_batch_times_that_were_measured(fake: FakeTorchServe) -> None:
    fake.described = description(seconds={1: 0.0, 8: 0.002, 64: float("nan"), 256: 0.05})
    async with started_pool(fake) as pool:
        await until(lambda: any(offer.target for offer in pool.offers()))
        assert pool.offers()[0].batch_seconds == {8: 0.001, 256: 0.025}  # of one of the two operations


async def test_calls_carry_the_token(pool: TorchServePool, fake: FakeTorchServe) -> None:
    await pool.call(sample_call(ready_target(pool)), timeout_s=5)
    assert ("authorization", "Bearer key") in fake.seen_metadata


async def test_a_reply_becomes_rows(pool: TorchServePool) -> None:
    reply = await pool.call(sample_call(ready_target(pool)), timeout_s=5)
    assert isinstance(reply.outcomes[0], Rows)
    assert reply.outcomes[0].array.shape == (1, 1, 2, 1)


STATUSES = {
    "handler raised": ((grpc.StatusCode.UNAVAILABLE, "Prediction failed"), WorkerFault),
    "TorchServe gone": ((grpc.StatusCode.UNAVAILABLE, "failed to connect"), WorkerLost),
    "queue full": (NO_WORKER, WorkerBusy),
    "worker died": ((grpc.StatusCode.INTERNAL, "Worker died."), WorkerLost),
    "model not found": ((grpc.StatusCode.INTERNAL, "Model not found: toy"), WorkerLost),
    "message too large": ((grpc.StatusCode.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size"), WorkerFault),
    "no token": ((grpc.StatusCode.PERMISSION_DENIED, "Token Authorization failed."), WorkerLost),
}


@pytest.mark.parametrize("case", STATUSES, ids=str)
async def test_a_status_of_torchserve_becomes_an_error_of_the_service(
    pool: TorchServePool, fake: FakeTorchServe, case: str
) -> None:
    fake.reply, meaning = STATUSES[case]
    with pytest.raises(meaning) as error:
        await pool.call(sample_call(ready_target(pool)), timeout_s=5)
    assert type(error.value) is meaning
    assert getattr(error.value, "died", False) == (case == "worker died")


async def test_the_status_of_a_full_queue_means_a_lost_worker_when_none_remains(pool, fake: FakeTorchServe) -> None:
    toy = ready_target(pool)
    fake.reply, fake.pids = NO_WORKER, []
    with pytest.raises(WorkerLost):
        await pool.call(sample_call(toy), timeout_s=5)


async def test_a_call_without_an_answer_in_time_is_too_late(pool: TorchServePool, fake: FakeTorchServe) -> None:
    fake.delay_s = 5
    with pytest.raises(TooLate):
        await pool.call(sample_call(ready_target(pool)), timeout_s=0.1)


@pytest.mark.parametrize(
    "reply",
    [b"\xff\xff", worker_pb2.WorkerReply(), rows(2)],
    ids=["garbage", "too-few-items", "too-many-rows"],
)
async def test_a_reply_that_does_not_fit_the_call_is_a_worker_fault(pool, fake: FakeTorchServe, reply) -> None:
    fake.reply = reply
    with pytest.raises(WorkerFault):
        await pool.call(sample_call(ready_target(pool)), timeout_s=5)


async def test_a_tensor_of_the_wrong_size_is_a_worker_fault(pool, fake: FakeTorchServe) -> None:
    fake.reply = rows()
    fake.reply.items[0].value.data = b"\x00"
    with pytest.raises(WorkerFault):
        await pool.call(sample_call(ready_target(pool)), timeout_s=5)


@pytest.mark.parametrize("reason", ["NUMERICS_MISMATCH", "DIGEST_MISMATCH", "MODEL_UNAVAILABLE"])
async def test_a_worker_that_differs_from_its_description_is_lost_and_described_again(pool, fake, reason: str) -> None:
    status = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="these are avx512")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="fount"))
    fake.reply = worker_pb2.WorkerReply(items=[worker_pb2.WorkerOutcome(status=status)])
    fake.described = description(numerics="avx512")
    with pytest.raises(WorkerLost):
        await pool.call(sample_call(ready_target(pool)), timeout_s=5)
    await until(lambda: [offer.numerics for offer in pool.offers()] == ["avx512"])


async def test_an_unknown_encoding_of_a_newer_worker_is_ignored(fake: FakeTorchServe) -> None:
    fake.described.description.model.encodings.append(99)
    async with started_pool(fake) as pool:
        await until(lambda: any(offer.target for offer in pool.offers()))


async def test_probing_continues_after_an_invalid_answer(pool, fake: FakeTorchServe, monkeypatch) -> None:
    monkeypatch.setattr("service.workers.torchserve.replica._SLOW_PROBE_S", 0.05)
    good, fake.pids = fake.pids, None
    await until(lambda: not any(offer.target for offer in pool.offers()))
    fake.pids = good
    await until(lambda: any(offer.target for offer in pool.offers()))


async def test_a_worker_that_fails_its_golden_samples_is_not_used(fake: FakeTorchServe) -> None:
    fake.described = description(model_pb2.Model.STATE_UNAVAILABLE)
    async with started_pool(fake) as pool:
        await until(lambda: any(offer.reason == "golden samples differ by 9 levels" for offer in pool.offers()))
        assert pool.offers()[0].target is None


async def test_a_worker_that_never_loads_is_unavailable_before_serve_times_out(monkeypatch) -> None:
    from service.cli import serve
    from service.workers.torchserve import replica

    assert serve._READY_S > replica._LOADING_S
    monkeypatch.setattr(replica, "_LOADING_S", 0.1)
    async with started_pool(FakeTorchServe(pids=[])) as pool:
        await until(lambda: [offer.state for offer in pool.offers()] == [ModelState.UNAVAILABLE])
        assert "see TorchServe's log for the reason" in pool.offers()[0].reason


async def test_a_restarted_worker_is_described_again(pool: TorchServePool, fake: FakeTorchServe) -> None:
    fake.described = description(numerics="after-restart")
    fake.pids = [12, 13]
    await until(lambda: [(o.numerics, o.workers) for o in pool.offers()] == [("after-restart", 2)])


async def test_a_torchserve_that_went_away_has_no_ready_workers(fake: FakeTorchServe) -> None:
    async with running(fake) as address:
        pool = TorchServePool([address])
        await pool.start()
        await until(lambda: any(offer.target for offer in pool.offers()))
    await until(lambda: not any(offer.target for offer in pool.offers()))
    assert pool.offers()[0].reason == "TorchServe does not answer"
    await pool.close()


async def test_a_call_for_unknown_numerics_is_not_executed(pool: TorchServePool) -> None:
    other = ready_target(pool)
    with pytest.raises(NotReady):
        await pool.call(sample_call(Target(model=other.model, numerics="unknown")), timeout_s=1)


async def test_a_slow_description_of_a_new_worker_leaves_the_offer_of_the_others(pool, fake: FakeTorchServe) -> None:
    fake.describe_delay_s, fake.pids = 30, [11, 12]
    await until(lambda: pool.workers(ready_target(pool)) == 2)


async def test_a_slow_description_is_used_as_soon_as_it_arrives(pool, fake: FakeTorchServe, monkeypatch) -> None:
    monkeypatch.setattr("service.workers.torchserve.replica._SLOW_PROBE_S", 60)
    monkeypatch.setattr("service.workers.torchserve.describe._WAIT_S", 0.05)
    fake.describe_delay_s, fake.described, fake.pids = 0.5, description(numerics="new"), [11, 12]
    pool.replicas[0]._probe_now.set()
    await until(lambda: pool.offers()[0].numerics == "new")


async def test_it_is_discovered_only_with_the_offers_of_its_models(fake: FakeTorchServe) -> None:
    fake.describe_delay_s = 0.3
    async with started_pool(fake) as pool:
        await until(pool.is_discovered)
        assert [offer.name for offer in pool.offers()] == ["toy"]


@pytest.mark.parametrize("refusal", [NO_WORKER, (grpc.StatusCode.INTERNAL, "Worker died.")], ids=["full", "died"])
async def test_a_new_worker_that_cannot_be_described_leaves_the_offer_of_the_others(pool, fake, refusal) -> None:
    fake.describe_refused, fake.pids = refusal, [11, 12]
    await until(lambda: pool.workers(ready_target(pool)) == 2)


async def test_a_description_is_requested_again_after_a_full_queue(fake: FakeTorchServe) -> None:
    fake.describe_refused = NO_WORKER
    async with started_pool(fake) as pool:
        await until(lambda: any("not described itself" in offer.reason for offer in pool.offers()))
        assert pool.offers()[0].state is ModelState.LOADING
        fake.describe_refused = None
        await until(lambda: any(offer.target for offer in pool.offers()))


async def test_workers_that_keep_dying_are_not_used_until_they_have_lived_for_a_while(pool, fake, monkeypatch) -> None:
    monkeypatch.setattr("service.workers.torchserve.replica._SLOW_PROBE_S", 0.05)
    monkeypatch.setattr("service.workers.torchserve.group._STABLE_S", 0.5)
    toy = ready_target(pool)
    for pid in (12, 13, 14):
        fake.pids = [pid]
        await until(lambda seen=pid: seen in pool.replicas[0]._groups["toy", "1"].stability._since_s)
    await until(lambda: pool.offers()[0].state is ModelState.UNAVAILABLE)
    assert pool.offers()[0].reason.startswith("its workers keep dying (3 times in the last minute)")
    assert pool.workers(toy) == 0
    await until(lambda: pool.workers(toy) == 1)


async def test_a_closed_pool_ends_its_calls_as_lost(fake: FakeTorchServe) -> None:
    async with running(fake) as address:
        pool = TorchServePool([address])
        await pool.start()
        await until(lambda: any(offer.target for offer in pool.offers()))
        fake.stalled = asyncio.Event()
        waiting = asyncio.create_task(pool.call(sample_call(ready_target(pool)), timeout_s=5))
        await until(lambda: fake.running == 1)
        await pool.close()
        with pytest.raises(WorkerLost):
            await waiting


async def test_a_call_to_an_address_that_was_just_retired_is_lost(pool: TorchServePool) -> None:
    toy = ready_target(pool)
    (route,) = pool.replicas[0].routes(toy)
    await pool.replicas[0].retire("it was killed")
    with pytest.raises(WorkerLost):
        await pool.replicas[0].call(route, sample_call(toy), 5)
