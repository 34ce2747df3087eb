"""Plans of translated and reconstructed rows: what they contain, what they warn of, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from fount.readers import DatasetSource
from fount.v1 import latent_pb2
from service.augmentation.slots import Source
from service.caller import Caller
from service.datasets import DatasetSettings
from service.domain import Operation, QualityFigure
from service.errors import NotPermitted, PlanRefused, Retired, UnknownName
from service.workers.memory_models import memory_model
from tests.contract.augmentation.test_planning import fields_of, reasons, slots
from tests.contract.augmenting import (
    ADA,
    ALL_SOURCES,
    AUTOENCODER,
    CLASSES,
    CLASSIFIER,
    DOUBLE,
    RECONSTRUCTED,
    SHAPE,
    TRANSLATED,
    TRANSLATOR,
    Planning,
    every_source,
    generating_pool,
    planning_with,
    reconstruction,
    small_settings,
    translation,
)

DRAWN = reconstruction("")
EVERY_SOURCE = every_source(translation(), DRAWN)
OPERATIONS = {"translate": frozenset({Operation.TRANSLATE}), "latents": frozenset({Operation.ENCODE, Operation.DECODE})}


@pytest.fixture
async def planning(tmp_path: Path) -> AsyncIterator[Planning]:
    async with planning_with(generating_pool(), small_settings(tmp_path)) as planning:
        yield planning


# --- Plans ------------------------------------------------------------------------------------------------------------


async def test_every_unset_field_is_filled_in(planning: Planning) -> None:
    request = (await planning.plan(EVERY_SOURCE)).request
    digest = CLASSIFIER.key.digest
    translation, reconstruction = request.translation, request.reconstruction
    assert (translation.model.digest, translation.classifier.digest) == (TRANSLATOR.key.digest, digest)
    assert (reconstruction.model.digest, reconstruction.classifier.digest) == (AUTOENCODER.key.digest, digest)
    assert (translation.min_confidence, reconstruction.min_confidence) == (0.5, 0.5)
    assert not translation.HasField("label")
    assert (reconstruction.latents, reconstruction.attempts) == (latent_pb2.LATENTS_SAMPLED, 8)


async def test_a_model_that_draws_nothing_has_one_attempt(planning: Planning) -> None:
    mix = "mix { translated: 1 reconstructed: 1 }"
    more = f"{translation('attempts: 5')} {reconstruction('latents: LATENTS_MEAN attempts: 5')}"
    request = (await planning.plan(f"{DOUBLE} {mix} {more}")).request
    assert (request.translation.attempts, request.reconstruction.attempts) == (1, 1)


async def test_the_resolved_request_plans_the_same(planning: Planning) -> None:
    direction = translation('label { name: "two" } parameters { steps: 3 } attempts: 4')
    plan = await planning.plan(every_source(direction, DRAWN))
    again = await planning.plan(text_format.MessageToString(plan.request))
    assert plan.request.translation.label.id == 2
    assert plan.request.translation.parameters.steps == 3
    assert (again.id, again.request) == (plan.id, plan.request)


async def test_a_ticket_opens_to_the_plan(planning: Planning) -> None:
    plan = await planning.plan(EVERY_SOURCE)
    opened = await planning.another_issuer().open(plan.ticket, ADA)
    generation = opened.generation
    assert {(each.label, each.source): each.count for each in opened.layout.strata} == slots(plan)
    assert [each.model.role for each in generation.values()] == ["generator", "translator", "autoencoder"]
    assert [each.attempts for each in generation.values()] == [8, 1, 8]
    assert generation[Source.TRANSLATED].labels.tolist() == [0, 1, 2]
    assert generation[Source.RECONSTRUCTED].labels is None


async def test_plans_of_the_first_sources_keep_their_ids(planning: Planning) -> None:
    """An id is a digest of what a ticket holds, so tickets of before are read as they were."""
    assert (await planning.plan("seed: 1")).id == "094481c22f69d4511c81bfe6"
    assert (await planning.plan(ALL_SOURCES)).id == "bfbde71a0feaffcdd65a909b"


async def test_models_are_pinned_and_equal_ones_once(planning: Planning) -> None:
    plan = await planning.plan(EVERY_SOURCE)
    assert [(each.role, each.model.name) for each in plan.models] == [
        ("generator", "painter"), ("classifier", "reader"), ("translator", "repainter"), ("autoencoder", "copier"),
        ("transformer", "transforms"),
    ]  # fmt: skip


async def test_sources_may_have_classifiers_of_their_own(planning: Planning) -> None:
    other = memory_model("other", labels=CLASSES, dims=SHAPE, operations=frozenset({Operation.CLASSIFY}))
    planning.pool.models.append(other)
    own = translation('classifier { name: "other" }')
    plan = await planning.plan(every_source(own, DRAWN))
    opened = await planning.issuer.open(plan.ticket, ADA)
    names = [each.classifier.model.key.name for each in opened.generation.values()]
    assert names == ["reader", "other", "reader"]
    assert [each.model.name for each in plan.models if each.role == "classifier"] == ["reader", "other"]


@pytest.mark.parametrize("place", [3, 4], ids=["translator", "autoencoder"])
async def test_a_retired_model_is_named(planning: Planning, place: int) -> None:
    ticket, model = (await planning.plan(EVERY_SOURCE)).ticket, planning.pool.models[place]
    planning.pool.models[place] = replace(model, key=replace(model.key, digest="sha256:" + "0" * 64))
    with pytest.raises(Retired, match=model.key.digest):
        await planning.issuer.open(ticket, ADA)


@pytest.mark.parametrize("missing", ["sample:repainter", "sample:copier"])
async def test_grants_are_needed_to_plan_and_to_pull(planning: Planning, missing: str) -> None:
    every = frozenset({"dataset:small", "sample:painter", "sample:repainter", "sample:copier"})
    caller = Caller(subject="ada", grants=every - {missing})
    with pytest.raises(NotPermitted, match=missing):
        await planning.plan(EVERY_SOURCE, caller)
    with pytest.raises(NotPermitted, match=missing):
        await planning.issuer.open((await planning.plan(EVERY_SOURCE)).ticket, caller)


async def test_rejections_are_expected_of_all_sources_together(planning: Planning) -> None:
    direction = translation('label { name: "zero" }')
    plan = await planning.plan(f"{DOUBLE} mix {{ translated: 1 reconstructed: 1 }} {direction} {reconstruction()}")
    assert (plan.expected_rejected, plan.expected_attempts) == (12.0, 1.0)


async def test_rows_that_every_attempt_rejects_are_expected(tmp_path: Path) -> None:
    """Half of the rows pass every other attempt, the others never; independent attempts would reject 4 of 40."""
    images = np.zeros((40, *SHAPE), np.uint8)
    images[::2, 0, 0, 0] = 255
    np.savez(tmp_path / "odd.npz", x_train=images, y_train=np.zeros(40, np.uint8))
    source = DatasetSource(name="odd", path=tmp_path / "odd.npz", classes=("zero",))
    async with planning_with(generating_pool(), DatasetSettings(source=source, classifier="reader")) as planning:
        plan = await planning.plan(f'dataset: "odd" {RECONSTRUCTED}{DRAWN}')
    assert plan.expected_rejected == pytest.approx(20, abs=4)
    assert plan.expected_attempts == pytest.approx(5, abs=1)  # (2 + 8) / 2


async def test_steps_of_a_translation_are_in_the_estimated_time(planning: Planning) -> None:
    many = translation("parameters { steps: 1000 }")
    few, long = await planning.plan(f"{TRANSLATED}{translation()}"), await planning.plan(f"{TRANSLATED}{many}")
    assert long.estimated_time.ToNanoseconds() > 10 * few.estimated_time.ToNanoseconds()


# --- Warnings ---------------------------------------------------------------------------------------------------------


async def test_labels_that_nothing_checks_are_warned_of(planning: Planning) -> None:
    unchecked = translation("min_confidence: 0")
    plan = await planning.plan(f"{TRANSLATED}{unchecked}")
    message = next(each.message for each in plan.warnings if each.reason == "NOT_VERIFIED")
    assert "nothing checks that repainter keeps labels: name a classifier in translation.classifier" in message
    assert "COPY_FILTER_OFF" not in reasons(plan)


async def test_classes_whose_rows_are_rejected_are_warned_of(planning: Planning) -> None:
    direction = translation('label { name: "zero" }')
    plan = await planning.plan(f"{TRANSLATED}{direction}")
    assert (
        "about 24 of 64 translated slots will be rejected, of 'one' 100%, 'two' 100%: lower "
        "translation.min_confidence, or name another model"
    ) in [each.message for each in plan.warnings]


async def test_a_weak_card_is_warned_of(planning: Planning) -> None:
    figure = QualityFigure(metric="label-accuracy", value=0.71, interval=(0.7, 0.72))
    planning.pool.models[4] = replace(AUTOENCODER, quality=(figure,))
    plan = await planning.plan(f"{RECONSTRUCTED}{reconstruction()}")
    assert "copier has a label-accuracy of 0.71" in "".join(each.message for each in plan.warnings)


async def test_a_cap_is_warned_of(planning: Planning) -> None:
    plan = await planning.plan(f"{DOUBLE} mix {{ translated: 1 max_synthetic_ratio: 0.5 }} {translation()}")
    assert "'zero' gets 20 generated rows, not 40" in next(
        each.message for each in plan.warnings if each.reason == "CAPPED"
    )


# --- What is refused --------------------------------------------------------------------------------------------------


async def test_every_wrong_field_is_named(planning: Planning) -> None:
    error = await planning.refusal(
        f"{DOUBLE} mix {{ translated: 1 reconstructed: 1 }}"
        ' translation { model { name: "repainter" } label { } parameters { steps: 5000 top_k: 3 } min_confidence: 2'
        ' attempts: 65 } reconstruction { model { name: "copier" } latents: 9 min_confidence: -1 attempts: 99 }'
    )
    assert set(fields_of(error)) == {
        "translation.label", "translation.parameters.steps", "translation.parameters.top_k",
        "translation.min_confidence", "translation.attempts", "reconstruction.latents",
        "reconstruction.min_confidence", "reconstruction.attempts",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        (TRANSLATED, "translation", "for mix.translated is above 0; name a translator in translation.model"),
        (RECONSTRUCTED, "reconstruction", "name an autoencoder in reconstruction.model"),
        (f"{TRANSLATED}translation {{ }}", "translation.model.name", "name a model"),
        ("mix { translated: -1 }", "mix.translated", "not negative"),
        ("mix { reconstructed: nan }", "mix.reconstructed", "finite"),
    ],
)
async def test_a_wrong_field_is_explained(planning: Planning, text: str, field: str, words: str) -> None:
    error = await planning.refusal(text)
    assert words in str(error)
    assert field in fields_of(error)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f'{TRANSLATED}translation {{ model {{ name: "repaint" }} }}', "translation.model.name"),
        (f"{TRANSLATED}{translation('label { id: 7 }')}", "translation.label.id"),
        (TRANSLATED + translation('classifier { name: "j" }'), "translation.classifier.name"),
        (f'{RECONSTRUCTED}reconstruction {{ model {{ name: "copy" }} }}', "reconstruction.model.name"),
    ],
)
async def test_an_unknown_name_is_not_found(planning: Planning, text: str, field: str) -> None:
    assert fields_of(await planning.refusal(text, UnknownName)) == [field]


async def test_directions_must_be_named_for_all_rows(planning: Planning) -> None:
    planning.pool.models[3] = memory_model(
        "repainter", labels=("to-photo", "to-sketch"), dims=SHAPE, operations=OPERATIONS["translate"], input_dims=SHAPE
    )
    error = await planning.refusal(f"{TRANSLATED}{translation()}")
    assert fields_of(error) == ["translation.label"]
    assert "it knows 0 ('to-photo'), 1 ('to-sketch'); name one of these for all rows" in str(error)


async def test_a_label_for_a_translator_without_labels_is_refused(planning: Planning) -> None:
    planning.pool.models[3] = memory_model(
        "repainter", labels=(), dims=SHAPE, operations=OPERATIONS["translate"], input_dims=SHAPE
    )
    labelled = translation("label { id: 0 }")
    assert "repainter has no labels; leave the label out" in str(await planning.refusal(f"{TRANSLATED}{labelled}"))
    assert (await planning.plan(f"{TRANSLATED}{translation()}")).rows == 128


async def test_a_class_that_an_autoencoder_does_not_know_is_named(planning: Planning) -> None:
    planning.pool.models[4] = memory_model(
        "copier", labels=("zero", "one"), dims=SHAPE, operations=OPERATIONS["latents"], latent_dim=15
    )
    error = await planning.refusal(f"{RECONSTRUCTED}{reconstruction()}")
    assert fields_of(error) == ["reconstruction.model"]
    assert "copier does not know 'two'" in str(error)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"dims": (8, 8, 1), "input_dims": SHAPE}, "repainter, the translator, is for images of 8×8×1"),
        ({"dims": SHAPE, "input_dims": (2, 2, 1)}, "repainter, the translator, translates images of 2×2×1"),
    ],
    ids=["made", "taken"],
)
async def test_a_translator_to_or_from_another_shape_is_refused(planning: Planning, shapes, words: str) -> None:
    planning.pool.models[3] = memory_model("repainter", labels=CLASSES, operations=OPERATIONS["translate"], **shapes)
    error = await planning.refusal(f"{TRANSLATED}{translation()}", PlanRefused)
    assert f"{words}, and small has 4×4×1; name a translator of that shape" in str(error)


async def test_a_model_that_does_not_translate_or_decode_is_refused(planning: Planning) -> None:
    planning.pool.models[4] = memory_model(
        "copier", labels=(), dims=SHAPE, operations=frozenset({Operation.ENCODE}), latent_dim=15
    )
    error = await planning.refusal(f"{TRANSLATED}{translation().replace('repainter', 'painter')}", Retired)
    assert "lacks the operation TRANSLATE" in str(error)
    error = await planning.refusal(f"{RECONSTRUCTED}{reconstruction()}", Retired)
    assert "lacks the operation DECODE" in str(error)
