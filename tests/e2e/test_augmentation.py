"""Augmentation on the real stack: rows are the same bytes however they are pulled, and what cannot be is refused."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fount import Client
from fount.augmentation.plan import PlanInfo
from fount.errors import FailedPrecondition, FountError, InvalidRequest, NotAllowed
from fount.readers import DatasetSource, DatasetSplit, read_dataset
from fount.ticket.v1 import ticket_pb2
from service.augmentation.copy_filter import CopyFilter
from service.rpc.tickets import TicketKeys, open_ticket, sign
from tests.e2e.augmenting import (
    EVERYTHING,
    GENERATOR,
    REAL,
    RECONSTRUCTED,
    RESAMPLED,
    SYNTHESISED,
    TRANSFORMED,
    Augmented,
    Columns,
    columns_of,
    pulled,
    pulled_in_pieces,
    same,
    second_gateway,
)


@pytest.fixture(scope="module")
def client(augmented: Augmented) -> Iterator[Client]:
    with Client(augmented.server) as client:
        yield client


@pytest.fixture(scope="module")
def other(augmented: Augmented, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a second gateway before the same TorchServe, with the same keys."""
    with second_gateway(augmented, tmp_path_factory.mktemp("other")) as served, Client(served.server) as client:
        yield client


@pytest.fixture(scope="module")
def plan(client: Client) -> PlanInfo:
    return client.plan(EVERYTHING)


@pytest.fixture(scope="module")
def whole(client: Client, plan: PlanInfo) -> Columns:
    """The plan's rows, pulled at once."""
    return pulled(client, plan, shards=1)


@pytest.fixture(scope="module")
def train() -> DatasetSplit:
    return read_dataset(DatasetSource(name="digits")).splits["train"]


# --- The same bytes ---------------------------------------------------------------------------------------------------


def test_it_delivers_the_slots_of_the_plan(plan: PlanInfo, whole: Columns) -> None:
    planned = dict.fromkeys((REAL, RESAMPLED, TRANSFORMED, SYNTHESISED), 0)
    for slot in plan.message.slots:
        planned[slot.source] += slot.count
    assert dict(enumerate(np.bincount(whole["sources"]).tolist())) == {0: 0} | planned
    assert min(planned.values()) > 400
    assert whole["attempts"].any()
    assert 0 < whole["rejected"].sum() < planned[SYNTHESISED] // 4


def test_it_sends_zeros_for_rejected_slots_and_for_no_others(whole: Columns) -> None:
    assert not whole["images"][whole["rejected"]].any()
    assert (whole["sources"][whole["rejected"]] == SYNTHESISED).all()
    assert whole["images"][~whole["rejected"]].any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_it_gives_the_same_bytes_in_any_shards_broken_off_and_resumed_at_two_gateways(
    client: Client, other: Client, plan: PlanInfo, whole: Columns, shards: int
) -> None:
    rng, batches = np.random.default_rng(shards), []
    for shard in range(shards):
        first, end = plan.rows * shard // shards, plan.rows * (shard + 1) // shards
        stops = sorted(rng.choice(range((first + 1) | 1, end, 2), 3, replace=False).tolist())
        clients = (client, other) if shard % 2 else (other, client)
        batches += pulled_in_pieces(clients, plan, shard, shards, stops)
    assert same(columns_of(batches), whole)


def test_two_gateways_make_the_same_plan(client: Client, other: Client, plan: PlanInfo, whole: Columns) -> None:
    again = other.plan(EVERYTHING)
    assert (again.id, again.copy_threshold, again.slots) == (plan.id, plan.copy_threshold, plan.slots)
    assert same(pulled(client, again, shards=2, start_index=7), {name: each[7 : len(each) // 2] for name, each in
                whole.items()})  # fmt: skip


def test_a_synthesised_row_is_the_sample_at_its_address(client: Client, plan: PlanInfo, whole: Columns) -> None:
    accepted = np.flatnonzero((whole["sources"] == SYNTHESISED) & ~whole["rejected"])
    refused_before = accepted[whole["attempts"][accepted] > 0]
    assert len(refused_before) >= 10
    for row in [*refused_before[:10], *accepted[:10]]:
        address = {"seed": int(whole["seeds"][row]), "start_index": int(whole["indices"][row])}
        sample = client.sample(GENERATOR, count=1, label=plan.classes[whole["labels"][row]], **address)
        assert sample.tobytes() == whole["images"][row].tobytes()


def test_a_reconstructed_row_is_the_reconstruction_of_its_source_row(client: Client, train: DatasetSplit) -> None:
    plan = client.plan(
        {"dataset": "digits", "seed": 11, "real": "none", "target": {"factor": 0.2}, "mix": {"reconstructed": 1}}
        | {"reconstruction": {"model": GENERATOR, "min_confidence": 0.96, "attempts": 3}}
    )
    rows = pulled(client, plan)
    accepted = np.flatnonzero(~rows["rejected"])
    assert set(rows["sources"]) == {RECONSTRUCTED}
    assert len(accepted) > 0.7 * plan.rows
    assert plan.expected_rejected == pytest.approx(rows["rejected"].sum(), rel=0.4)
    assert rows["attempts"][accepted].max() > 0
    for row in [*accepted[rows["attempts"][accepted] > 0][:5], *accepted[:5]]:
        source, label = train.images(rows["source_rows"][[row]]), plan.classes[rows["labels"][row]]
        address = {"seed": int(rows["seeds"][row]), "start_index": int(rows["indices"][row])}
        again = client.reconstruct(GENERATOR, source, label=label, sampled=True, **address)
        assert again.tobytes() == rows["images"][row].tobytes()


def test_copy_ratios_can_be_recomputed(plan: PlanInfo, whole: Columns, train: DatasetSplit) -> None:
    accepted = (whole["sources"] == SYNTHESISED) & ~whole["rejected"]
    ratios = CopyFilter(train).ratios(whole["images"][accepted], whole["labels"][accepted].astype(np.uint32))
    assert ratios.astype(np.float32).tobytes() == whole["copy_ratios"][accepted].tobytes()
    assert ratios.min() >= (plan.copy_threshold or 1.0)


def test_a_planted_copy_among_samples_is_refused(client: Client, plan: PlanInfo, train: DatasetSplit) -> None:
    """One sample in twenty is replaced by a training row of its class."""
    drawn = client.sample(GENERATOR, count=2000, seed=21)
    images, labels = np.array(drawn), np.asarray(drawn.labels, np.uint32)
    planted = np.random.default_rng(4).choice(len(images), len(images) // 20, replace=False)
    images[planted] = train.images(
        np.array([np.flatnonzero(train.labels == label)[label] for label in labels[planted]])
    )
    refused = CopyFilter(train).ratios(images, labels) < plan.copy_threshold
    honest = np.delete(refused, planted)
    print(f"threshold {plan.copy_threshold:.3f}: {refused[planted].mean():.3f} of {len(planted)} copies, "  # noqa: T201
          f"{honest.mean():.4f} of {len(honest)} other samples refused")  # fmt: skip
    assert refused[planted].all()
    assert honest.mean() < 0.1


# --- Variants of a client's own rows ----------------------------------------------------------------------------------


def test_variants_come_in_order_and_are_the_same_bytes_however_rows_are_cut(
    client: Client, other: Client, train: DatasetSplit
) -> None:
    images, labels = train.images(np.arange(300)), train.labels[:300]
    given = {"dataset": "digits", "variants": 3, "seed": 5, "provenance": "full"}
    at_once = columns_of(client.augment(images, labels, **given))
    cuts = [0, 1, 2, 130, 300]
    pieces = ((images[a:b], labels[a:b]) for a, b in itertools.pairwise(cuts))
    assert same(columns_of(other.augment(pieces, **given)), at_once)
    assert at_once["rows"].tolist() == list(range(900))
    assert at_once["source_rows"].tolist() == np.repeat(range(300), 3).tolist()
    assert at_once["labels"].tolist() == labels.repeat(3).tolist()


# --- What is refused --------------------------------------------------------------------------------------------------

SYNTHESIS = {"target": {"factor": 2}, "mix": {"synthesised": 1}, "synthesis": {"model": GENERATOR, "copy_quantile": 0}}
FLIP = {"mix": {"transformed": 1}, "policy": [{"flip-horizontal": True}], "target": {"factor": 2}}


@pytest.mark.parametrize(
    ("specification", "error", "result"),
    [
        ({"dataset": "digits"} | FLIP, FailedPrecondition, "FLIP_HORIZONTAL"),
        ({"dataset": "strange"} | SYNTHESIS, InvalidRequest, "ten"),
        ({"dataset": "large"} | SYNTHESIS, FailedPrecondition, "images of 8×8×1, and large has 16×16×1"),
    ],
    ids=["a flip of digits", "a class unknown to the generator", "images of another shape"],
)
def test_a_plan_that_cannot_be_is_refused(
    client: Client, specification: dict[str, Any], error: type, result: str
) -> None:
    with pytest.raises(error, match=result):
        client.plan(specification)


def tampered(plan: PlanInfo, keys: TicketKeys) -> bytes:
    """One bit of the payload is another."""
    ticket = bytearray(plan.ticket)
    ticket[len(ticket) // 2] ^= 1
    return bytes(ticket)


def foreign(plan: PlanInfo, keys: TicketKeys) -> bytes:
    """Signed with a key that the gateway does not have."""
    return sign(payload_of(plan, keys), TicketKeys.at(None))


def forged(plan: PlanInfo, keys: TicketKeys) -> bytes:
    """Signed with a key that goes by the name of the gateway's."""
    return sign(payload_of(plan, keys), TicketKeys(keys={keys.signing[0]: bytes(32)}))


def stolen(plan: PlanInfo, keys: TicketKeys) -> bytes:
    """Of another caller."""
    payload = payload_of(plan, keys)
    payload.subject = "somebody else"
    return sign(payload, keys)


def payload_of(plan: PlanInfo, keys: TicketKeys) -> ticket_pb2.TicketPayload:
    return open_ticket(plan.ticket, keys, "anonymous")


@pytest.mark.parametrize(
    ("change", "error", "result"),
    [
        (tampered, InvalidRequest, "ticket: "),
        (foreign, InvalidRequest, "ticket: was signed with the key"),
        (forged, InvalidRequest, "ticket: was changed after it was signed"),
        (stolen, NotAllowed, "another caller"),
    ],
)
def test_a_ticket_that_is_not_the_callers_is_refused(
    client: Client, plan: PlanInfo, augmented: Augmented, change: Callable, error: type[FountError], result: str
) -> None:
    with pytest.raises(error, match=result):
        client.pull_info(change(plan, TicketKeys.at(augmented.keys)))


def test_a_ticket_ends(client: Client) -> None:
    plan = client.plan({"dataset": "digits", "time_to_live_hours": 1 / 3600})
    time.sleep(max(0.0, plan.expires.timestamp() - time.time()) + 0.05)
    with pytest.raises(InvalidRequest, match="ticket: expired"):
        client.pull_info(plan)


def test_a_data_set_that_was_changed_is_refused_by_who_read_it_and_by_who_did_not(
    client: Client, other: Client, augmented: Augmented
) -> None:
    plan = client.plan({"dataset": "changing", "seed": 1})
    assert len(pulled(client, plan)["rows"]) == 200
    change(augmented.sets / "changing.npz")
    with pytest.raises(FailedPrecondition, match=r"changing\.npz changed after it was read"):
        pulled(client, plan)
    with pytest.raises(FailedPrecondition, match=f"changing with digest {plan.dataset_digest} is not served"):
        pulled(other, plan)


def change(file: Path) -> None:
    """Another value for one pixel of one row."""
    with np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    images[7, 0, 0, 0] ^= 1
    np.savez(file, images=images, labels=labels)
