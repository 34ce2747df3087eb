"""CreateEvaluation's fields: wrong ones are named, open ones are filled in, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fount.v1 import evaluation_pb2, model_pb2, sampling_pb2
from service.caller import Caller
from service.catalog import Catalog
from service.datasets import Datasets
from service.domain import ParameterRange
from service.errors import EvaluationRefused, InvalidRequest, NotPermitted, NotReady, Retired, UnknownName
from service.evaluation.results import Panel
from service.evaluation.specification import Specification
from service.rpc.evaluation_request import read_create_request
from service.workers import Offer
from service.workers.memory import MemoryPool
from tests.contract.evaluation_gateway import JUDGE, MODELS, PAINTER, settings

ANYONE = Caller(subject="a", grants=frozenset({"*"}))
Ref, Reference = model_pb2.ModelRef, evaluation_pb2.Reference


class Desk:
    """Reads requests against in-memory models and data sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = MemoryPool(models=list(MODELS))
        self.pool.set_up(True)
        self.data_sets = [settings(folder)]
        self.caller = ANYONE
        self.max_samples = 50_000

    async def read(self, **fields) -> Specification:
        given = {"model": Ref(name="painter"), "count": 100} | fields
        return await read_create_request(
            evaluation_pb2.CreateEvaluationRequest(**{name: each for name, each in given.items() if each is not None}),
            catalog=Catalog(self.pool),
            datasets=Datasets(self.data_sets),
            caller=self.caller,
            max_samples=self.max_samples,
            code_version="1.2",
        )

    async def violations(self, **fields) -> dict[str, str]:
        """Wrong fields by name."""
        with pytest.raises(InvalidRequest) as refused:
            await self.read(**fields)
        return {each.field: each.description for each in refused.value.violations}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- What is left open ------------------------------------------------------------------------------------------------


async def test_everything_left_open_is_filled_in(desk: Desk) -> None:
    asked = await desk.read(count=None)
    assert (asked.model.digest, asked.model.numerics, asked.model.version) == (PAINTER.key.digest, "memory", "1")
    assert (asked.classifier, asked.extractor) == (asked.classifier, asked.classifier)
    assert (asked.classifier.name, asked.classifier.digest) == ("judge", JUDGE.key.digest)
    assert (asked.dataset, asked.training_split, asked.held_out_split) == ("small", "train", "test")
    assert (asked.training_rows, asked.held_out_rows, asked.image_shape) == (60, 60, (4, 4, 1))
    assert (asked.count, asked.panels, asked.gates, asked.code_version) == (10_000, tuple(Panel), (), "1.2")


async def test_classes_are_matched_by_name(desk: Desk) -> None:
    asked = await desk.read()
    assert (asked.classes, asked.model_labels) == (("zero", "one", "two"), (2, 1, 0))
    assert (asked.classifier_labels, asked.conditional) == ((0, 1, 2), True)


async def test_an_unconditional_model_is_asked_three_questions(desk: Desk) -> None:
    asked = await desk.read(model=Ref(name="blind"))
    assert (asked.model_labels, asked.conditional) == ((), False)
    assert asked.panels == (Panel.REALISM, Panel.DIVERSITY, Panel.MEMORISATION)


async def test_a_seed_is_drawn_where_none_is_given(desk: Desk) -> None:
    assert (await desk.read()).seed != (await desk.read()).seed
    assert (await desk.read(seed=0)).seed == 0


async def test_a_cap_below_the_usual_count_is_the_count(desk: Desk) -> None:
    desk.max_samples = 700
    assert (await desk.read(count=None)).count == 700


async def test_parameters_take_the_card_s_defaults(desk: Desk) -> None:
    known = dict(PAINTER.parameters) | {"truncation": ParameterRange(minimum=0.5, maximum=4.0, default=2.0)}
    desk.pool.models[0] = replace(PAINTER, parameters=known)
    assert (await desk.read()).parameters.truncation == 2.0
    assert (await desk.read(parameters=sampling_pb2.Parameters(truncation=1.0))).parameters.truncation == 1.0


async def test_panels_are_in_the_order_of_the_report(desk: Desk) -> None:
    asked = await desk.read(panels=[evaluation_pb2.PANEL_MEMORISATION, evaluation_pb2.PANEL_REALISM])
    assert asked.panels == (Panel.REALISM, Panel.MEMORISATION)


async def test_an_extractor_and_splits_may_be_named(desk: Desk) -> None:
    reference = Reference(dataset="small", training_split="test", held_out_split="train")
    asked = await desk.read(extractor=Ref(name="eyes", version="1"), reference=reference)
    assert (asked.extractor.name, asked.classifier.name) == ("eyes", "judge")
    assert (asked.training_split, asked.held_out_split) == ("test", "train")


async def test_numerics_are_those_of_the_most_workers(desk: Desk) -> None:
    more = Offer(
        name="painter", version="1", model=PAINTER, numerics="other", state=desk.pool.offers()[0].state, workers=5
    )
    desk.pool.extra_offers = [more]
    assert (await desk.read()).model.numerics == "other"


async def test_the_specification_outlives_json(desk: Desk) -> None:
    asked = await desk.read(parameters=sampling_pb2.Parameters(steps=3), gates=["precision > 0"])
    assert Specification.from_json(asked.to_json()) == asked


# --- The reference that is left open ----------------------------------------------------------------------------------


async def test_the_one_data_set_of_the_model_s_shape_is_taken(desk: Desk) -> None:
    desk.data_sets = [settings(desk.folder, "plain", ""), settings(desk.folder, "small")]
    assert (await desk.read()).dataset == "small"


async def test_several_that_fit_are_named(desk: Desk) -> None:
    desk.data_sets = [settings(desk.folder, "a"), settings(desk.folder, "b")]
    told = (await desk.violations())["reference.dataset"]
    assert told == "name a data set: there are several of 4×4×1 that a served classifier can read: 'a', 'b'"


async def test_of_several_the_one_the_caller_may_use_is_taken(desk: Desk) -> None:
    desk.data_sets = [settings(desk.folder, "a"), settings(desk.folder, "b")]
    desk.caller = Caller(subject="a", grants=frozenset({"sample:*", "dataset:b"}))
    assert (await desk.read()).dataset == "b"


async def test_none_that_fits_is_told(desk: Desk) -> None:
    told = await desk.violations(model=Ref(name="wide"))
    assert told == {"reference.dataset": "name a data set: there is none of 4×5×1 that a served classifier can read"}


async def test_a_classifier_that_still_loads_may_be_the_one(desk: Desk) -> None:
    desk.pool.models.remove(JUDGE)
    desk.pool.extra_offers = [Offer(name="judge", version="1")]
    with pytest.raises(NotReady, match="judge is not ready; name a data set, or try again"):
        await desk.read()


# --- Wrong fields -----------------------------------------------------------------------------------------------------

REALISM, FIDELITY = evaluation_pb2.PANEL_REALISM, evaluation_pb2.PANEL_LABEL_FIDELITY
WRONG = {
    "no model": ({"model": None}, "model.name", "name a model"),
    "unknown model": ({"model": Ref(name="paintr")}, "model.name", "did you mean 'painter'?"),
    "unknown version": ({"model": Ref(name="painter", version="9")}, "model.version", "'9' is not served"),
    "digest": ({"model": Ref(name="painter", digest="x")}, "model.digest", 'is not "sha256:"'),
    "too few": ({"count": 49}, "count", "must be 50 to 50000, got 49"),
    "too many": ({"count": 50_001}, "count", "must be 50 to 50000, got 50001"),
    "too few for a panel": ({"count": 60}, "count", "60 samples are too few for realism (100), diversity (100)"),
    "parameter": ({"parameters": sampling_pb2.Parameters(top_k=3)}, "parameters.top_k", "painter does not take it"),
    "range": ({"parameters": sampling_pb2.Parameters(truncation=9)}, "parameters.truncation", "must be 0.5 to 4"),
    "panel": ({"panels": [REALISM, 9]}, "panels[1]", "9 is not a Panel"),
    "no panel": ({"panels": [0]}, "panels[0]", "0 is not a Panel"),
    "panel twice": ({"panels": [REALISM, REALISM]}, "panels[1]", "names realism a second time"),
    "no labels": ({"model": Ref(name="blind"), "panels": [FIDELITY]}, "panels[0]", "blind is unconditional"),
    "gate": ({"gates": ["precision > 0", "precision"]}, "gates[1]", "compares nothing"),
    "gate of nothing": ({"gates": ["precisoin > 0"]}, "gates[0]", "did you mean 'precision'?"),
    "gate not asked": ({"gates": ["copy_rate < 1"], "panels": [REALISM]}, "gates[0]", "is not asked for"),
    "gate of no class": ({"gates": ["recall[nine] > 0"]}, "gates[0]", "'nine' is no class of the reference"),
    "long gate": ({"gates": ["precision > 0" + " " * 200]}, "gates[0]", "at most 200"),
    "many gates": ({"gates": ["precision > 0"] * 65}, "gates", "must be at most 64, got 65"),
    "data set": ({"reference": Reference(dataset="smal")}, "reference.dataset", "did you mean 'small'?"),
    "split": ({"reference": Reference(training_split="trai")}, "reference.training_split", "it has train, test"),
    "held out": ({"reference": Reference(held_out_split="x")}, "reference.held_out_split", "it has train, test"),
    "same split": (
        {"reference": Reference(held_out_split="train")},
        "reference.held_out_split",
        "is 'train', which is",
    ),
    "extractor": ({"extractor": Ref(name="eye")}, "extractor.name", "did you mean 'eyes'?"),
    "no extractor": ({"extractor": Ref(version="1")}, "extractor.name", "name a model"),
    "classifier": ({"classifier": Ref(name="judge", version="2")}, "classifier.version", "'2' is not served"),
}


@pytest.mark.parametrize(("fields", "field", "told"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_field_is_named(desk: Desk, fields: dict[str, object], field: str, told: str) -> None:
    violations = await desk.violations(**fields)
    assert list(violations) == [field]
    assert told in violations[field]


async def test_all_wrong_fields_are_named_at_once(desk: Desk) -> None:
    violations = await desk.violations(
        count=1, panels=[0], gates=["?"], extractor=Ref(name="x"), classifier=Ref(name="y"),
        reference=Reference(training_split="x"), parameters=sampling_pb2.Parameters(top_p=1),
    )  # fmt: skip
    assert sorted(violations) == [
        "classifier.name", "count", "extractor.name", "gates[0]", "panels[0]", "parameters.top_p",
        "reference.training_split",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["unknown model", "data set", "split", "extractor"])
async def test_names_that_are_unknown_are_not_found(desk: Desk, name: str) -> None:
    with pytest.raises(UnknownName):
        await desk.read(**WRONG[name][0])


async def test_a_data_set_without_a_classifier_asks_for_one_where_several_can_read_it(desk: Desk) -> None:
    desk.data_sets = [settings(desk.folder, "plain", "")]
    second = replace(JUDGE, key=replace(JUDGE.key, name="second"))
    desk.pool = MemoryPool(models=[*MODELS, second])
    desk.pool.set_up(True)
    told = await desk.violations(reference=Reference(dataset="plain"))
    assert set(told) == {"classifier", "extractor"}
    assert told["classifier"].endswith("name a model, or give the data set a classifier with --data-sets")


async def test_the_one_model_that_can_read_a_data_set_reads_it(desk: Desk) -> None:
    desk.data_sets = [settings(desk.folder, "plain", "")]
    asked = await desk.read()
    assert (asked.dataset, asked.classifier.name, asked.extractor.name) == ("plain", "judge", "judge")


async def test_a_held_out_split_needs_rows(desk: Desk) -> None:
    desk.data_sets = [settings(desk.folder, rows=49)]
    told = await desk.violations()
    assert told == {"reference.held_out_split": "must have at least 50 rows; test has 49"}


# --- What does not fit ------------------------------------------------------------------------------------------------


async def test_another_shape_is_refused_with_both_named(desk: Desk) -> None:
    with pytest.raises(EvaluationRefused, match="wide, the generator, is for images of 4×5×1, and small has 4×4×1"):
        await desk.read(model=Ref(name="wide"), reference=Reference(dataset="small"))


async def test_a_generator_without_a_class_is_refused(desk: Desk) -> None:
    with pytest.raises(EvaluationRefused, match="few, the generator, does not know the classes 'one', 'two' of small"):
        await desk.read(model=Ref(name="few"))


async def test_a_classifier_without_a_class_is_refused(desk: Desk) -> None:
    with pytest.raises(EvaluationRefused, match="few, the classifier, does not know the classes"):
        await desk.read(classifier=Ref(name="few"))


async def test_images_too_large_for_a_message_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.evaluation.compatibility._MOST_IMAGE_BYTES", 15)
    with pytest.raises(EvaluationRefused, match="an image of small has 16 bytes, and at most 15 can be compared"):
        await desk.read()


async def test_a_generator_that_gives_no_bytes_is_refused(desk: Desk) -> None:
    with pytest.raises(EvaluationRefused, match="floats cannot return UINT8"):
        await desk.read(model=Ref(name="floats"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": Ref(name="judge")}, "judge 1 lacks the operation SAMPLE; it has CLASSIFY, EMBED"),
        ({"extractor": Ref(name="painter")}, "painter 1 lacks the operation EMBED"),
        ({"classifier": Ref(name="eyes")}, "eyes 1 lacks the operation CLASSIFY"),
    ],
    ids=["model", "extractor", "classifier"],
)
async def test_a_model_without_the_operation_is_refused(desk: Desk, fields: dict[str, object], told: str) -> None:
    with pytest.raises(Retired, match=told):
        await desk.read(**fields)


async def test_a_digest_that_is_not_served_is_refused(desk: Desk) -> None:
    with pytest.raises(Retired, match="is not served"):
        await desk.read(model=Ref(name="painter", digest="sha256:" + "0" * 64))


async def test_nothing_is_pinned_while_workers_load(desk: Desk) -> None:
    desk.pool.set_up(False)
    with pytest.raises(NotReady):
        await desk.read(reference=Reference(dataset="small"))


@pytest.mark.parametrize("grant", ["sample:painter", "dataset:small"])
async def test_grants_come_before_anything_else(desk: Desk, grant: str) -> None:
    desk.caller = Caller(subject="a", grants=frozenset({"sample:painter", "dataset:small"} - {grant}))
    with pytest.raises(NotPermitted, match=grant):
        await desk.read(reference=Reference(dataset="small"), count=1)
