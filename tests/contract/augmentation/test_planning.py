"""Plans over in-memory workers: what they contain, what they warn of, what is refused, and what a ticket opens to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from fount.readers import DatasetSource
from fount.transforms import Kind
from fount.v1 import augmentation_pb2
from service.augmentation.slots import Source
from service.caller import Caller
from service.datasets import DatasetSettings
from service.domain import Operation, QualityFigure
from service.errors import (
    DatasetUnreadable,
    FountServiceError,
    InvalidRequest,
    NotLoaded,
    NotPermitted,
    PlanRefused,
    Retired,
    TicketInvalid,
    UnknownName,
)
from service.rpc.tickets import TicketKeys
from service.workers import Offer
from service.workers.memory_models import memory_model
from tests.contract.augmenting import (
    ADA,
    ALL_SOURCES,
    BOB,
    CLASSES,
    CLASSIFIER,
    GENERATOR,
    SHAPE,
    SYNTHESIS,
    Planning,
    augmenting_pool,
    plan_request,
    planning_with,
    small_settings,
)


def settings_with_groups(folder: Path) -> DatasetSettings:
    """Two classes, two groups; the second class has no row of the second group."""
    file, labels, groups = folder / "grouped.npz", [0] * 6 + [1] * 4, [0] * 4 + [1] * 2 + [0] * 4
    images = np.zeros((10, *SHAPE), np.uint8)
    images[:, 0, 0, 0] = 200 * np.array(labels)
    np.savez(file, x_train=images, y_train=labels, groups_train=groups)
    return DatasetSettings(source=DatasetSource(name="grouped", path=file, classes=("zero", "one")))


@pytest.fixture
async def planning(tmp_path: Path) -> AsyncIterator[Planning]:
    async with planning_with(augmenting_pool(), small_settings(tmp_path), settings_with_groups(tmp_path)) as planning:
        yield planning


def slots(plan: augmentation_pb2.Plan) -> dict[tuple[int, int], int]:
    """Counts by class and source."""
    return {(each.label, each.source): each.count for each in plan.slots}


def reasons(plan: augmentation_pb2.Plan) -> list[str]:
    return [each.reason for each in plan.warnings]


def fields_of(error: FountServiceError) -> list[str]:
    assert isinstance(error, InvalidRequest)
    return [each.field for each in error.violations]


# --- What a plan contains ---------------------------------------------------------------------------------------------


async def test_an_empty_request_plans_the_data_set_as_it_is(planning: Planning) -> None:
    plan = await planning.plan()
    assert slots(plan) == {(0, 1): 40, (1, 1): 20, (2, 1): 4}
    assert plan.rows == 64
    assert list(plan.models) == []
    assert reasons(plan) == []


async def test_slots_are_exact(planning: Planning) -> None:
    plan = await planning.plan(ALL_SOURCES)
    assert slots(plan) == {
        (0, 1): 40, (1, 1): 20, (1, 2): 7, (1, 3): 7, (1, 4): 6, (2, 1): 4, (2, 2): 12, (2, 3): 12, (2, 4): 12,
    }  # fmt: skip
    assert plan.rows == 120


async def test_every_unset_field_is_filled_in(planning: Planning) -> None:
    request = (
        await planning.plan('mix { transformed: 1 synthesised: 1 } synthesis { model { name: "painter" } }')
    ).request
    assert request.HasField("seed")
    assert request.split == "train"
    assert request.target.factor == 1.0
    assert [each.kind for each in request.policy.transforms] == [Kind.ROTATE, Kind.SHIFT]
    assert request.synthesis.model.digest == GENERATOR.key.digest
    assert request.synthesis.classifier.digest == CLASSIFIER.key.digest
    assert request.synthesis.min_confidence == 0.5
    assert request.synthesis.copy_quantile == 0.01
    assert request.synthesis.attempts == 8
    assert request.verification.min_agreement == 0.9
    assert request.time_to_live.seconds == 86400


async def test_the_resolved_request_plans_the_same(planning: Planning) -> None:
    plan = await planning.plan(ALL_SOURCES)
    again = await planning.plan(text_format.MessageToString(plan.request))
    assert again.id == plan.id
    assert again.request == plan.request


async def test_another_seed_is_another_plan(planning: Planning) -> None:
    assert (await planning.plan("seed: 1")).id != (await planning.plan("seed: 2")).id


async def test_a_longer_time_to_live_is_the_same_plan(planning: Planning) -> None:
    short, long = await planning.plan("seed: 1"), await planning.plan("seed: 1 time_to_live { seconds: 999999 }")
    assert short.id == long.id
    assert short.expire_time.seconds < long.expire_time.seconds


async def test_models_are_pinned(planning: Planning) -> None:
    plan = await planning.plan(ALL_SOURCES)
    assert [(each.role, each.model.name, each.numerics) for each in plan.models] == [
        ("generator", "painter", "memory"), ("classifier", "reader", "memory"), ("transformer", "transforms", "memory"),
    ]  # fmt: skip


async def test_class_weights_make_classes_count_alike(planning: Planning) -> None:
    weights = np.array((await planning.plan()).class_weights)
    assert weights * [40, 20, 4] == pytest.approx(64 / 3)


async def test_agreement_is_measured_for_each_transform(planning: Planning) -> None:
    agreement = (await planning.plan("target { factor: 2 } mix { transformed: 1 }")).agreement
    assert (agreement.rows, agreement.before, agreement.after) == (64, 1.0, 1.0)
    assert [(each.kind, each.after) for each in agreement.transforms] == [(Kind.ROTATE, 1.0), (Kind.SHIFT, 1.0)]


async def test_rejections_are_expected_from_a_trial(planning: Planning) -> None:
    plan = await planning.plan(ALL_SOURCES)
    assert plan.expected_attempts == 1.0
    assert plan.expected_rejected == 0.0


async def test_a_filter_that_nothing_passes_rejects_every_slot(planning: Planning) -> None:
    plan = await planning.plan(
        ALL_SOURCES.replace("copy_quantile: 0", "copy_quantile: 0 min_confidence: 0.95 attempts: 3")
    )
    assert plan.expected_attempts == 3.0
    assert plan.expected_rejected == 18.0


async def test_time_is_estimated(planning: Planning) -> None:
    few, many = await planning.plan("seed: 1"), await planning.plan("seed: 1 target { factor: 1000 }")
    assert 0 < few.estimated_time.ToNanoseconds() < many.estimated_time.ToNanoseconds()


async def test_a_copy_threshold_is_calibrated(planning: Planning) -> None:
    plan = await planning.plan(ALL_SOURCES.replace("copy_quantile: 0", "copy_quantile: 0.1"))
    assert 0 < plan.copy_threshold < 1


# --- Warnings ---------------------------------------------------------------------------------------------------------


async def test_a_changed_prior_is_warned_of(planning: Planning) -> None:
    plan = await planning.plan("target { balance_to_largest: true }")
    assert reasons(plan) == ["PRIOR_CHANGED"]
    assert "'zero' is 62.5% of the data and 33.3% of the plan" in plan.warnings[0].message


async def test_a_cap_is_warned_of(planning: Planning) -> None:
    plan = await planning.plan(
        f"target {{ balance_to_largest: true }} mix {{ synthesised: 1 max_synthetic_ratio: 1 }} {SYNTHESIS}"
    )
    message = next(each.message for each in plan.warnings if each.reason == "CAPPED")
    assert "'two' gets 4 generated rows, not 36" in message
    assert "32 rows are missing" in message


async def test_a_copy_filter_that_is_off_is_warned_of(planning: Planning) -> None:
    assert "COPY_FILTER_OFF" in reasons(await planning.plan(ALL_SOURCES))


async def test_few_rows_for_a_copy_filter_are_warned_of(planning: Planning) -> None:
    plan = await planning.plan(ALL_SOURCES.replace("copy_quantile: 0", "copy_quantile: 0.1"))
    assert "'two' has fewer than 10 rows" in next(each.message for each in plan.warnings if each.reason == "FEW_ROWS")


async def test_an_empty_group_is_warned_of(planning: Planning) -> None:
    plan = await planning.plan('dataset: "grouped" target { balance_to_largest: true by_group: true }')
    message = next(each.message for each in plan.warnings if each.reason == "GROUP_EMPTY")
    assert "'one' of '1'" in message


async def test_a_class_of_low_confidence_is_warned_of(planning: Planning) -> None:
    planning.pool.models[1] = memory_model(
        "reader", labels=("zero", "two", "one"), dims=SHAPE, operations=frozenset({Operation.CLASSIFY})
    )
    plan = await planning.plan(f"target {{ factor: 2 }} mix {{ synthesised: 1 }} {SYNTHESIS}")
    message = next(each.message for each in plan.warnings if each.reason == "GENERATOR_WEAK")
    assert "'one' (5% sure, 0% accepted), 'two' (5% sure, 0% accepted)" in message


async def test_filters_that_reject_nearly_all_samples_are_warned_of(planning: Planning) -> None:
    strict = SYNTHESIS.replace("copy_quantile: 0", "copy_quantile: 0 min_confidence: 1 attempts: 2")
    plan = await planning.plan(f"target {{ factor: 2 }} mix {{ synthesised: 1 }} {strict}")
    messages = [each.message for each in plan.warnings if each.reason == "GENERATOR_WEAK"]
    assert [each for each in messages if "about 64 of 64 synthesised slots will be rejected, of 'zero' 100%" in each]


async def test_a_weak_card_is_warned_of(planning: Planning) -> None:
    figure = QualityFigure(metric="label-accuracy", value=0.71, interval=(0.7, 0.72))
    planning.pool.models[0] = replace(GENERATOR, quality=(figure,))
    plan = await planning.plan(ALL_SOURCES)
    assert "label-accuracy of 0.71 (0.7 to 0.72), below 0.9" in next(
        each.message for each in plan.warnings if each.reason == "GENERATOR_WEAK"
    )


async def test_unverified_transforms_are_warned_of(planning: Planning) -> None:
    del planning.pool.models[1]
    plan = await planning.plan("target { factor: 2 } mix { transformed: 1 }")
    assert "NOT_VERIFIED" in reasons(plan)
    assert not plan.HasField("agreement")


async def test_rows_of_the_test_split_are_warned_of(planning: Planning) -> None:
    assert reasons(await planning.plan('split: "test"')) == ["TRAINED_ON_TEST"]


# --- What is refused --------------------------------------------------------------------------------------------------


async def test_every_wrong_field_is_named(planning: Planning) -> None:
    error = await planning.refusal(
        "target { factor: -1 } mix { synthesised: 1 max_synthetic_ratio: -2 } shards: 70000 time_to_live { seconds: 0 }"
        'synthesis { model { name: "painter" } min_confidence: 2 copy_quantile: 0.7 attempts: 65'
        " parameters { truncation: 99 top_k: 3 } } verification { min_agreement: 7 rows: 3 } real { mode: 9 }"
        " policy { transforms { kind: KIND_ROTATE max: 500 } }"
    )
    assert set(fields_of(error)) == {
        "target.factor", "mix.max_synthetic_ratio", "shards", "time_to_live", "synthesis.min_confidence",
        "synthesis.copy_quantile", "synthesis.attempts", "synthesis.parameters.truncation",
        "synthesis.parameters.top_k", "verification.min_agreement", "verification.rows", "real.mode",
        "policy.transforms[0].max",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('dataset: ""', "dataset", "name a data set"),
        ("target { }", "target", "set balance_to_largest"),
        ("target { balance_to_largest: false }", "target.balance_to_largest", "must be true"),
        ("target { factor: nan }", "target.factor", "above 0 and at most 1000"),
        ("target { factor: 0.001 subsample: true }", "target", "comes to 0"),
        (
            "target { factor: 0.5 }",
            "target.factor",
            "class 'zero' has 40 rows and would have 20, class 'one' has 20 rows and would have 10, class 'two' has 4 "
            "rows and would have 2; set target.subsample to leave rows out, or a factor of at least 1",
        ),
        ("target { factor: 2 by_group: true }", "target.by_group", "no group column"),
        ("target { counts { } }", "target.counts.counts", "1 to 4096 entries"),
        ("target { counts { counts { count: 5 } } }", "target.counts.counts[0].label", "set an id or a name"),
        (
            "target { counts { counts { label { id: 2 } count: 9 } counts { label { name: 'two' } count: 8 } } }",
            "target.counts.counts[1]",
            "a second time",
        ),
        (
            "target { counts { counts { label { id: 0 } count: 9 } } }",
            "target.counts.counts[0]",
            "has 40 rows and would have 9",
        ),
        ("target { weights { total: 90 } }", "target.weights.weights", "at least one weight above 0"),
        (
            "target { weights { weights { label { id: 0 } weight: 1 } } }",
            "target.weights.total",
            "1 to 1099511627776",
        ),
        ("mix { }", "mix", "at least one weight above 0"),
        ("mix { resampled: -1 }", "mix.resampled", "not negative"),
        ("mix { resampled: inf }", "mix.resampled", "finite"),
        ("mix { synthesised: 1 }", "synthesis", "name a generator"),
        ("policy { }", "policy.transforms", ""),
    ],
)
async def test_a_wrong_field_is_explained(planning: Planning, text: str, field: str, words: str) -> None:
    error = await planning.refusal(text)
    assert field in fields_of(error)
    assert words in str(error)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('dataset: "smal"', "dataset"),
        ('split: "validation"', "split"),
        ("target { balance_to_class { name: 'three' } }", "target.balance_to_class.name"),
        ("target { counts { counts { label { id: 7 } count: 9 } } }", "target.counts.counts[0].label.id"),
        ("target { counts { counts { label { id: 1 } group: 'x' count: 90 } } }", "target.counts.counts[0].group"),
        ('mix { synthesised: 1 } synthesis { model { name: "pinter" } }', "synthesis.model.name"),
        ('mix { transformed: 1 } verification { classifier { name: "j" } }', "verification.classifier.name"),
    ],
)
async def test_an_unknown_name_is_not_found(planning: Planning, text: str, field: str) -> None:
    assert fields_of(await planning.refusal(text, UnknownName)) == [field]


async def test_a_plan_shows_its_target_with_class_ids(planning: Planning) -> None:
    target = "subsample: true by_group: true counts {{ counts {{ label {{ {label} }} count: 3 }} }}"
    plan = await planning.plan('dataset: "grouped" target { ' + target.format(label='name: "one"') + " }")
    assert plan.request.target == plan_request("target { " + target.format(label="id: 1") + " }").target


@pytest.mark.parametrize(("text", "index"), [("2", 0), ("#2", 2), ("1", 1), ("cat", 2)])
async def test_a_class_is_a_name_first_and_then_an_index(tmp_path: Path, text: str, index: int) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((9, *SHAPE), np.uint8), labels=np.repeat(np.arange(3), 3))
    source = DatasetSource(name="numbered", path=tmp_path / "x.npz", classes=("2", "dog", "cat"))
    async with planning_with(augmenting_pool(), DatasetSettings(source=source)) as planning:
        label = f"label {{ name: '{text}' }}"
        for target in (f"counts {{ counts {{ {label} count: 1 }} }}", f"balance_to_class {{ name: '{text}' }}"):
            plan = await planning.plan(f'dataset: "numbered" target {{ subsample: true {target} }}')
            sent = plan.request.target
            assert [each.label.id for each in sent.counts.counts] or [sent.balance_to_class.id] == [index]


async def test_names_match_in_either_form_of_unicode(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    names = np.array([decomposed, "the"] * 5)
    np.savez(tmp_path / "drinks.npz", images=np.zeros((10, *SHAPE), np.uint8), labels=names, groups=names)
    drinks = DatasetSettings(source=DatasetSource(name="drinks", path=tmp_path / "drinks.npz"))
    async with planning_with(augmenting_pool(), drinks) as planning:
        for name in (composed, decomposed):
            counts = f"counts {{ label {{ name: '{name}' }} group: '{name}' count: 3 }}"
            plan = await planning.plan(f'dataset: "drinks" target {{ subsample: true counts {{ {counts} }} }}')
            assert (slots(plan)[0, 1], list(plan.classes), list(plan.groups)) == (
                3,
                [composed, "the"],
                [composed, "the"],
            )
            assert [each.label.id for each in plan.request.target.counts.counts] == [0]


async def test_counts_with_and_without_groups_do_not_mix(planning: Planning) -> None:
    counts = "counts { label { id: 0 } group: '0' count: 9 } counts { label { id: 1 } count: 9 }"
    error = await planning.refusal(f'dataset: "grouped" target {{ counts {{ {counts} }} }}')
    assert fields_of(error) == ["target.counts.counts"]


async def test_a_class_the_generator_does_not_know_is_named(planning: Planning) -> None:
    planning.pool.models[0] = memory_model("painter", labels=("zero", "one"), dims=SHAPE)
    error = await planning.refusal(ALL_SOURCES)
    assert fields_of(error) == ["synthesis.model"]
    assert "painter does not know 'two'; it knows 0 ('zero'), 1 ('one')" in str(error)


async def test_an_unconditional_generator_is_refused(planning: Planning) -> None:
    planning.pool.models[0] = memory_model("painter", labels=(), dims=SHAPE)
    assert "unconditional" in str(await planning.refusal(ALL_SOURCES))


async def test_a_generator_of_another_shape_is_refused(planning: Planning) -> None:
    planning.pool.models[0] = memory_model("painter", labels=CLASSES, dims=(8, 8, 1))
    error = await planning.refusal(ALL_SOURCES, PlanRefused)
    assert "painter, the generator, is for images of 8×8×1, and small has 4×4×1" in str(error)


async def test_a_generator_of_vectors_is_refused(planning: Planning) -> None:
    planning.pool.models[0] = memory_model("painter", labels=CLASSES, dims=(2,))
    error = await planning.refusal(ALL_SOURCES, PlanRefused)
    assert "painter, the generator, is for vectors of 2, and small has 4×4×1" in str(error)


async def test_a_generator_of_texts_is_refused(planning: Planning) -> None:
    planning.pool.models[0] = memory_model("painter", labels=CLASSES, max_text_bytes=16)
    error = await planning.refusal(ALL_SOURCES, PlanRefused)
    assert "painter, the generator, is for texts, and small has 4×4×1; name a generator of that shape" in str(error)


async def test_a_model_that_does_not_sample_is_refused(planning: Planning) -> None:
    error = await planning.refusal(ALL_SOURCES.replace("painter", "reader"), Retired)
    assert "lacks the operation SAMPLE" in str(error)


async def test_no_transformer_is_refused_with_the_remedy(planning: Planning) -> None:
    del planning.pool.models[2]
    assert "serve the archive `transforms`" in str(await planning.refusal("mix { transformed: 1 }", PlanRefused))


async def test_a_transformer_that_is_loading_is_not_ready(planning: Planning) -> None:
    planning.pool.models.pop()
    planning.pool.extra_offers.append(Offer(name="transforms", version="1"))
    assert "transforms 1 is not ready" in str(await planning.refusal("mix { transformed: 1 }", NotLoaded))


async def test_absent_workers_are_not_ready(planning: Planning) -> None:
    planning.pool.set_up(up=False)
    await planning.refusal(ALL_SOURCES, NotLoaded)


async def test_a_policy_that_changes_labels_is_refused_by_name(planning: Planning, monkeypatch) -> None:
    transform = planning.inference.transform

    async def break_labels(target, model, images, table, **rest):
        made = await transform(target, model, images, table, **rest)
        made[table[:, 2] != 0, 0, 0, 0] = 2  # every rotated row becomes a two
        return made

    monkeypatch.setattr(planning.inference, "transform", break_labels)
    message = str(await planning.refusal("target { factor: 2 } mix { transformed: 1 }", PlanRefused))
    assert "ROTATE changes labels: alone it leaves 6.2% of 64 rows" in message
    assert "below verification.min_agreement 90.0%" in message


async def test_a_minimum_of_0_only_reports_the_agreement(planning: Planning, monkeypatch) -> None:
    async def blank(target, model, images, table, **rest):
        return np.zeros_like(images)

    monkeypatch.setattr(planning.inference, "transform", blank)
    plan = await planning.plan("target { factor: 2 } mix { transformed: 1 } verification { min_agreement: 0 }")
    assert plan.agreement.after == 40 / 64


async def test_a_broken_data_set_is_named(planning: Planning, tmp_path: Path) -> None:
    (tmp_path / "small.npz").write_bytes(b"PK")
    assert "small.npz" in str(await planning.refusal("", DatasetUnreadable))


async def test_a_ticket_that_would_be_too_large_is_refused(planning: Planning, monkeypatch) -> None:
    monkeypatch.setattr("service.rpc.plans.MAX_TICKET_BYTES", 100)
    assert fields_of(await planning.refusal("")) == ["target"]


@pytest.mark.parametrize("missing", ["dataset:small", "sample:painter"])
async def test_grants_are_required(planning: Planning, missing: str) -> None:
    grants = {"dataset:small", "sample:painter"} - {missing}
    with pytest.raises(NotPermitted, match=missing):
        await planning.plan(ALL_SOURCES, Caller(subject="ada", grants=frozenset(grants)))


# --- Tickets ----------------------------------------------------------------------------------------------------------


async def test_a_ticket_opens_to_the_plan(planning: Planning) -> None:
    plan = await planning.plan(ALL_SOURCES + " shards: 3")
    opened = await planning.issuer.open(plan.ticket, ADA)
    assert (opened.id, opened.spec.seed, opened.spec.shards, opened.layout.count) == (plan.id, 5, 3, 120)
    synthesis = opened.generation[Source.SYNTHESISED]
    assert synthesis.model.model.key.name == "painter"
    assert synthesis.attempts == 8
    assert synthesis.min_confidence == 0.5
    assert synthesis.labels.tolist() == [0, 1, 2]


async def test_models_that_no_row_needs_are_not_opened(planning: Planning) -> None:
    opened = await planning.issuer.open((await planning.plan()).ticket, ADA)
    assert (opened.generation, opened.transformer) == ({}, None)


async def test_another_gateway_with_the_key_has_the_same_rows(planning: Planning) -> None:
    ticket = (await planning.plan(ALL_SOURCES)).ticket
    here, there = [await each.open(ticket, ADA) for each in (planning.issuer, planning.another_issuer())]
    ours, theirs = here.layout.rows(0, 120), there.layout.rows(0, 120)
    assert ours.source_row.tolist() == theirs.source_row.tolist()
    assert ours.source.tolist() == theirs.source.tolist()


async def test_labels_are_mapped_by_name(planning: Planning) -> None:
    planning.pool.models[0] = memory_model("painter", labels=("two", "other", "zero", "one"), dims=SHAPE)
    opened = await planning.issuer.open((await planning.plan(ALL_SOURCES)).ticket, ADA)
    assert opened.generation[Source.SYNTHESISED].labels.tolist() == [2, 3, 0]


async def test_the_layout_of_a_ticket_is_computed_once(planning: Planning) -> None:
    ticket = (await planning.plan(ALL_SOURCES)).ticket
    first, second = await asyncio.gather(planning.issuer.open(ticket, ADA), planning.issuer.open(ticket, ADA))
    assert (await planning.issuer.open(ticket, ADA)).layout in (first.layout, second.layout)


async def test_a_foreign_ticket_is_refused(planning: Planning) -> None:
    ticket = (await planning.plan()).ticket
    with pytest.raises(TicketInvalid):
        await planning.another_issuer(TicketKeys(keys={"k": b"x" * 32})).open(ticket, ADA)


async def test_another_caller_s_ticket_is_refused(planning: Planning) -> None:
    with pytest.raises(NotPermitted):
        await planning.issuer.open((await planning.plan()).ticket, BOB)


@pytest.mark.parametrize("missing", ["dataset:small", "sample:painter"])
async def test_grants_are_checked_again(planning: Planning, missing: str) -> None:
    ticket, grants = (await planning.plan(ALL_SOURCES)).ticket, {"dataset:small", "sample:painter"} - {missing}
    with pytest.raises(NotPermitted, match=missing):
        await planning.issuer.open(ticket, Caller(subject="ada", grants=frozenset(grants)))


@pytest.mark.parametrize("place", [0, 1, 2], ids=["generator", "classifier", "transformer"])
async def test_a_retired_model_is_named(planning: Planning, place: int) -> None:
    ticket, model = (await planning.plan(ALL_SOURCES)).ticket, planning.pool.models[place]
    planning.pool.models[place] = replace(model, key=replace(model.key, digest="sha256:" + "0" * 64))
    with pytest.raises(Retired, match=model.key.digest):
        await planning.issuer.open(ticket, ADA)


async def test_a_model_that_is_no_longer_served_is_named(planning: Planning) -> None:
    ticket = (await planning.plan(ALL_SOURCES)).ticket
    del planning.pool.models[0]
    with pytest.raises(Retired, match="'painter' is not served"):
        await planning.issuer.open(ticket, ADA)


async def test_retired_numerics_are_named(planning: Planning) -> None:
    ticket = (await planning.plan(ALL_SOURCES)).ticket
    planning.pool.numerics = ("other",)
    with pytest.raises(Retired, match="has the numerics 'memory'; there are other"):
        await planning.issuer.open(ticket, ADA)


async def test_rows_stay_on_the_pinned_numerics(planning: Planning) -> None:
    ticket = (await planning.plan(ALL_SOURCES)).ticket
    planning.pool.numerics = ("another", "memory")
    opened = await planning.issuer.open(ticket, ADA)
    assert {each.target.numerics for each in opened.models} == {"memory"}


async def test_a_changed_data_set_is_named(planning: Planning) -> None:
    plan = await planning.plan()
    dataset = await planning.datasets.open("small")
    dataset.__dict__["digest"] = "sha256:other"
    with pytest.raises(Retired, match=plan.dataset_digest):
        await planning.issuer.open(plan.ticket, ADA)


async def test_a_verifier_is_not_needed_to_pull(planning: Planning) -> None:
    ticket = (await planning.plan("target { factor: 2 } mix { transformed: 1 }")).ticket
    del planning.pool.models[1]
    assert (await planning.issuer.open(ticket, ADA)).transformer is not None


@pytest.mark.parametrize("mode", ["MODE_BOOTSTRAP", "MODE_POISSON"])
async def test_a_bootstrap_leaves_rows_out_of_bag(planning: Planning, mode: str) -> None:
    opened = await planning.issuer.open((await planning.plan(f"real {{ mode: {mode} }}")).ticket, ADA)
    assert opened.layout.is_bootstrapped
    assert 0 < len(opened.layout.out_of_bag()) < 64


async def test_a_plan_without_real_rows_has_none(planning: Planning) -> None:
    plan = await planning.plan("real { mode: MODE_NONE } target { factor: 0.5 }")
    assert {each.source for each in plan.slots} == {Source.RESAMPLED}
