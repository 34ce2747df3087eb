"""CreateEvaluation's fields: wrong ones are named, unset ones are filled in, and mismatches are refused."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
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
from service.workers.memory import MemoryPool, memory_model
from tests.contract.evaluation_gateway import MODELS, PAINTER, READER, settings

ANYONE = Caller(subject="a", grants=frozenset({"*"}))
Ref, Reference = model_pb2.ModelRef, evaluation_pb2.Reference


class Reader:
    """Reads requests against in-memory models and data sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = MemoryPool(models=list(MODELS))
        self.pool.set_up(up=True)
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
        )

    async def violations(self, **fields) -> dict[str, str]:
        """Wrong fields by name."""
        with pytest.raises(InvalidRequest) as refused:
            await self.read(**fields)
        return {each.field: each.description for each in refused.value.violations}


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


# --- Unset fields -----------------------------------------------------------------------------------------------------


async def test_unset_fields_are_filled_in(reader: Reader) -> None:
    spec = await reader.read(count=None)
    assert (spec.model.digest, spec.model.numerics, spec.model.version) == (PAINTER.key.digest, "memory", "1")
    assert (spec.classifier, spec.extractor) == (spec.classifier, spec.classifier)
    assert (spec.classifier.name, spec.classifier.digest) == ("reader", READER.key.digest)
    assert (spec.dataset, spec.training_split, spec.held_out_split) == ("small", "train", "test")
    assert (spec.training_rows, spec.held_out_rows, spec.image_shape) == (60, 60, (4, 4, 1))
    assert (spec.count, spec.panels, spec.gates, spec.code_version) == (10_000, tuple(Panel), (), version("fount"))


async def test_a_model_that_scores_is_scored_for_callers_who_may(reader: Reader) -> None:
    scorer, memorisation = Ref(name="scorer"), [evaluation_pb2.PANEL_MEMORISATION]
    assert (await reader.read(model=scorer)).score == "log-density"
    assert (await reader.read(model=scorer, panels=[evaluation_pb2.PANEL_REALISM])).score == ""
    assert (await reader.read(panels=memorisation)).score == ""
    reader.caller = Caller(subject="a", grants=frozenset({"sample:*", "dataset:*"}))
    assert (await reader.read(model=scorer)).score == ""


async def test_classes_are_matched_by_name(reader: Reader) -> None:
    spec = await reader.read()
    assert (spec.classes, spec.model_labels) == (("zero", "one", "two"), (2, 1, 0))
    assert (spec.classifier_labels, spec.conditional) == ((0, 1, 2), True)


async def test_an_unconditional_model_has_three_panels(reader: Reader) -> None:
    spec = await reader.read(model=Ref(name="blind"))
    assert (spec.model_labels, spec.conditional) == ((), False)
    assert spec.panels == (Panel.REALISM, Panel.DIVERSITY, Panel.MEMORISATION)


async def test_an_unset_seed_is_random(reader: Reader) -> None:
    assert (await reader.read()).seed != (await reader.read()).seed
    assert (await reader.read(seed=0)).seed == 0


async def test_a_limit_below_the_default_count_is_the_count(reader: Reader) -> None:
    reader.max_samples = 700
    assert (await reader.read(count=None)).count == 700


async def test_unset_parameters_are_the_defaults_of_the_card(reader: Reader) -> None:
    known = dict(PAINTER.parameters) | {"truncation": ParameterRange(minimum=0.5, maximum=4.0, default=2.0)}
    reader.pool.models[0] = replace(PAINTER, parameters=known)
    assert (await reader.read()).parameters.truncation == 2.0
    assert (await reader.read(parameters=sampling_pb2.Parameters(truncation=1.0))).parameters.truncation == 1.0


async def test_panels_are_in_the_order_of_the_report(reader: Reader) -> None:
    spec = await reader.read(panels=[evaluation_pb2.PANEL_MEMORISATION, evaluation_pb2.PANEL_REALISM])
    assert spec.panels == (Panel.REALISM, Panel.MEMORISATION)


async def test_an_extractor_and_splits_may_be_named(reader: Reader) -> None:
    reference = Reference(dataset="small", training_split="test", held_out_split="train")
    spec = await reader.read(extractor=Ref(name="eyes", version="1"), reference=reference)
    assert (spec.extractor.name, spec.classifier.name) == ("eyes", "reader")
    assert (spec.training_split, spec.held_out_split) == ("test", "train")


async def test_numerics_are_those_of_the_most_workers(reader: Reader) -> None:
    more = Offer(
        name="painter", version="1", model=PAINTER, numerics="other", state=reader.pool.offers()[0].state, workers=5
    )
    reader.pool.extra_offers = [more]
    assert (await reader.read()).model.numerics == "other"


async def test_a_specification_survives_json(reader: Reader) -> None:
    spec = await reader.read(parameters=sampling_pb2.Parameters(steps=3), gates=["precision > 0"])
    assert Specification.from_json(spec.to_json()) == spec


# --- The default reference --------------------------------------------------------------------------------------------


async def test_the_default_is_the_only_data_set_of_the_shape_with_a_classifier(reader: Reader) -> None:
    reader.data_sets = [settings(reader.folder, "plain", ""), settings(reader.folder, "small")]
    assert (await reader.read()).dataset == "small"


async def test_several_matching_data_sets_are_named(reader: Reader) -> None:
    reader.data_sets = [settings(reader.folder, "a"), settings(reader.folder, "b")]
    problem = (await reader.violations())["reference.dataset"]
    assert problem == "name a data set: there are several of 4×4×1 that a served classifier can read: 'a', 'b'"


async def test_data_sets_that_the_caller_may_not_use_do_not_count(reader: Reader) -> None:
    reader.data_sets = [settings(reader.folder, "a"), settings(reader.folder, "b")]
    reader.caller = Caller(subject="a", grants=frozenset({"sample:*", "dataset:b"}))
    assert (await reader.read()).dataset == "b"


async def test_no_matching_data_set_is_a_problem(reader: Reader) -> None:
    problems = await reader.violations(model=Ref(name="wide"))
    assert problems == {
        "reference.dataset": "name a data set: there is none of 4×5×1 that a served classifier can read"
    }


async def test_a_loading_classifier_is_waited_for(reader: Reader) -> None:
    reader.pool.models.remove(READER)
    reader.pool.extra_offers = [Offer(name="reader", version="1")]
    with pytest.raises(NotReady, match="reader is not ready; name a data set, or try again"):
        await reader.read()


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
    "gate of another panel": ({"gates": ["copy_rate < 1"], "panels": [REALISM]}, "gates[0]", "is not requested"),
    "gate of no class": ({"gates": ["recall[nine] > 0"]}, "gates[0]", "'nine' is not a class of the reference"),
    "long gate": ({"gates": ["precision > 0" + " " * 200]}, "gates[0]", "at most 200"),
    "many gates": ({"gates": ["precision > 0"] * 65}, "gates", "must be at most 64, got 65"),
    "data set": ({"reference": Reference(dataset="smal")}, "reference.dataset", "did you mean 'small'?"),
    "split": ({"reference": Reference(training_split="trai")}, "reference.training_split", "it has train, test"),
    "held out": ({"reference": Reference(held_out_split="x")}, "reference.held_out_split", "it has train, test"),
    "same split": (
        {"reference": Reference(held_out_split="train")},
        "reference.held_out_split",
        "is 'train', which is also training_split",
    ),
    "extractor": ({"extractor": Ref(name="eye")}, "extractor.name", "did you mean 'eyes'?"),
    "no extractor": ({"extractor": Ref(version="1")}, "extractor.name", "name a model"),
    "classifier": ({"classifier": Ref(name="reader", version="2")}, "classifier.version", "'2' is not served"),
}


@pytest.mark.parametrize(("fields", "field", "problem"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_field_is_named(reader: Reader, fields: dict[str, object], field: str, problem: str) -> None:
    violations = await reader.violations(**fields)
    assert list(violations) == [field]
    assert problem in violations[field]


async def test_all_wrong_fields_are_named_at_once(reader: Reader) -> None:
    violations = await reader.violations(
        count=1, panels=[0], gates=["?"], extractor=Ref(name="x"), classifier=Ref(name="y"),
        reference=Reference(training_split="x"), parameters=sampling_pb2.Parameters(top_p=1),
    )  # fmt: skip
    assert sorted(violations) == [
        "classifier.name", "count", "extractor.name", "gates[0]", "panels[0]", "parameters.top_p",
        "reference.training_split",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["unknown model", "data set", "split", "extractor"])
async def test_unknown_names_are_not_found(reader: Reader, name: str) -> None:
    with pytest.raises(UnknownName):
        await reader.read(**WRONG[name][0])


async def test_a_data_set_without_a_classifier_needs_one_if_several_models_can_read_it(reader: Reader) -> None:
    reader.data_sets = [settings(reader.folder, "plain", "")]
    second = replace(READER, key=replace(READER.key, name="second"))
    reader.pool = MemoryPool(models=[*MODELS, second])
    reader.pool.set_up(up=True)
    problems = await reader.violations(reference=Reference(dataset="plain"))
    assert set(problems) == {"classifier", "extractor"}
    assert problems["classifier"].endswith("name a model, or give the data set a classifier with --data-sets")


async def test_the_only_model_that_can_read_a_data_set_is_the_default(reader: Reader) -> None:
    reader.data_sets = [settings(reader.folder, "plain", "")]
    spec = await reader.read()
    assert (spec.dataset, spec.classifier.name, spec.extractor.name) == ("plain", "reader", "reader")


async def test_a_held_out_split_needs_rows(reader: Reader) -> None:
    reader.data_sets = [settings(reader.folder, rows=49)]
    problems = await reader.violations()
    assert problems == {"reference.held_out_split": "must have at least 50 rows; test has 49"}


# --- Mismatches -------------------------------------------------------------------------------------------------------


async def test_a_different_shape_is_refused_and_both_are_named(reader: Reader) -> None:
    with pytest.raises(EvaluationRefused, match="wide, the generator, is for images of 4×5×1, and small has 4×4×1"):
        await reader.read(model=Ref(name="wide"), reference=Reference(dataset="small"))


@pytest.mark.parametrize("reference", [None, Reference(dataset="small")], ids=["unset", "named"])
async def test_a_generator_of_vectors_is_refused(reader: Reader, reference: Reference | None) -> None:
    with pytest.raises(EvaluationRefused, match="points draws vectors of length 2, and the panels compare images"):
        await reader.read(model=Ref(name="points"), reference=reference)


async def test_a_generator_of_texts_is_refused(reader: Reader) -> None:
    reader.pool.models.append(memory_model("verse", labels=(), max_text_bytes=16))
    with pytest.raises(EvaluationRefused, match="verse draws texts, and the panels compare images"):
        await reader.read(model=Ref(name="verse"))


async def test_a_generator_without_a_class_is_refused(reader: Reader) -> None:
    with pytest.raises(EvaluationRefused, match="few, the generator, does not know the classes 'one', 'two' of small"):
        await reader.read(model=Ref(name="few"))


async def test_a_classifier_without_a_class_is_refused(reader: Reader) -> None:
    with pytest.raises(EvaluationRefused, match="few, the classifier, does not know the classes"):
        await reader.read(classifier=Ref(name="few"))


async def test_images_too_large_for_a_message_are_refused(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.evaluation.compatibility._MOST_IMAGE_BYTES", 15)
    with pytest.raises(EvaluationRefused, match="an image of small has 16 bytes, and at most 15 can be compared"):
        await reader.read()


async def test_a_generator_without_uint8_is_refused(reader: Reader) -> None:
    with pytest.raises(EvaluationRefused, match="floats cannot return UINT8"):
        await reader.read(model=Ref(name="floats"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": Ref(name="reader")}, "reader 1 lacks the operation SAMPLE; it has CLASSIFY, EMBED"),
        ({"extractor": Ref(name="painter")}, "painter 1 lacks the operation EMBED"),
        ({"classifier": Ref(name="eyes")}, "eyes 1 lacks the operation CLASSIFY"),
    ],
    ids=["model", "extractor", "classifier"],
)
async def test_a_model_without_the_operation_is_refused(
    reader: Reader, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(Retired, match=message):
        await reader.read(**fields)


async def test_a_digest_that_is_not_served_is_refused(reader: Reader) -> None:
    with pytest.raises(Retired, match="is not served"):
        await reader.read(model=Ref(name="painter", digest="sha256:" + "0" * 64))


async def test_nothing_is_pinned_while_workers_load(reader: Reader) -> None:
    reader.pool.set_up(up=False)
    with pytest.raises(NotReady):
        await reader.read(reference=Reference(dataset="small"))


@pytest.mark.parametrize("grant", ["sample:painter", "dataset:small"])
async def test_grants_are_checked_first(reader: Reader, grant: str) -> None:
    reader.caller = Caller(subject="a", grants=frozenset({"sample:painter", "dataset:small"} - {grant}))
    with pytest.raises(NotPermitted, match=grant):
        await reader.read(reference=Reference(dataset="small"), count=1)
