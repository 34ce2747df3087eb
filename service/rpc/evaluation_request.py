"""Parse a CreateEvaluationRequest into a `Specification`: check every field, and fill in everything that is unset.

Digests and numerics are pinned here, once; runners call exactly these models later. Problems are collected and raised
together: wrong fields first, then the first reason why valid names cannot be evaluated together.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version

from fount.names import class_index
from fount.readers import Dataset, DatasetSplit
from fount.v1 import evaluation_pb2, model_pb2
from service.caller import Caller
from service.catalog import Catalog, class_labels
from service.datasets import Datasets
from service.domain import ModelState, Operation, Parameters, ServedModel
from service.errors import DatasetUnreadable, FountServiceError, InvalidRequest, NotLoaded, NotReady, Retired, Violation
from service.evaluation.compatibility import PinnedRole, check_fit, check_kind, format_names, format_shape
from service.evaluation.panels.gates import parse_gate
from service.evaluation.panels.registry import FEWEST_SAMPLES
from service.evaluation.results import Panel
from service.evaluation.specification import MOST_SCORED, Specification
from service.rpc.evaluation_message import PANELS
from service.rpc.fields import Violations, raise_violations, read_parameters

__all__ = ["read_create_request"]

_DEFAULT_COUNT = 10_000
_MIN_SAMPLES, _MIN_ROWS = 50, 50
_SCORE_STEPS = 5000  # of the scores of a split together: some models take seconds for a row
_MAX_GATES, _MAX_GATE_CHARACTERS = 64, 200
_TRAINING_SPLIT, _HELD_OUT_SPLIT = "train", "test"

_OPERATIONS = {"model": Operation.SAMPLE, "extractor": Operation.EMBED, "classifier": Operation.CLASSIFY}
_LOADING = (ModelState.LOADING, ModelState.COLD)
_PANELS = {number: panel for panel, number in PANELS.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reference:
    """The real data that a request names."""

    dataset: Dataset
    training: DatasetSplit
    held_out: DatasetSplit
    classifier: str


async def read_create_request(
    request: evaluation_pb2.CreateEvaluationRequest,
    *,
    catalog: Catalog,
    datasets: Datasets,
    caller: Caller,
    max_samples: int,
) -> Specification:
    """Check and resolve a request.

    Args:
        request: the message.
        catalog: the served models.
        datasets: the configured data sets.
        caller: must have grants for the model and the data set; the default data set is one that they may use.
        max_samples: limit of the sample count.

    Raises:
        InvalidRequest: fields are wrong; names every one. UnknownName when names alone are unknown.
        NotPermitted: no grant for the model or the data set.
        EvaluationRefused: the models and the data set do not fit each other.
        Retired: a digest or an operation is not served.
        NotReady: a model has no ready worker to pin.
        DatasetUnreadable: a file of the data set is broken.
    """
    if request.model.name:
        caller.require(f"sample:{request.model.name}")
    if request.reference.dataset:
        caller.require(f"dataset:{request.reference.dataset}")
    reader = _Reader(request=request, catalog=catalog, datasets=datasets, caller=caller, max_samples=max_samples)
    return await reader.read()


@dataclass(kw_only=True, eq=False)
class _Reader:
    """Reads one request and collects its problems."""

    request: evaluation_pb2.CreateEvaluationRequest
    catalog: Catalog
    datasets: Datasets
    caller: Caller
    max_samples: int
    violations: Violations = field(default_factory=Violations)
    refusal: FountServiceError | None = None  # the first reason why valid names cannot be evaluated together

    async def read(self) -> Specification:
        """Return the specification, or raise every problem."""
        request = self.request
        generator = self._find("model", request.model)
        if generator is not None:
            check_kind(generator.model)
        reference = await self._reference(generator)
        classifier = self._reader_of("classifier", request.classifier, reference)
        extractor = self._reader_of("extractor", request.extractor, reference)
        conditional = None if generator is None else bool(generator.model.labels)
        panels = self._panels(conditional)
        count = self._count(panels)
        self._check_gates(panels, reference)
        parameters = Parameters()
        if generator is not None:
            parameters = read_parameters(request.parameters, "parameters", generator.model, self.violations)
        raise_violations(self.violations)
        if self.refusal:
            raise self.refusal
        if not (reference and generator and classifier and extractor):  # a violation or refusal has the reason
            raise InvalidRequest((Violation(field="", description="cannot be evaluated"),))
        check_fit(reference.dataset, generator, classifier, extractor)
        dataset, labels = reference.dataset, class_labels(reference.dataset, generator.model).tolist()
        return Specification(
            model=generator.pin,
            model_labels=tuple(labels) if conditional else (),
            extractor=extractor.pin,
            classifier=classifier.pin,
            classifier_labels=tuple(class_labels(dataset, classifier.model).tolist()),
            dataset=dataset.name,
            dataset_digest=dataset.digest,
            training_split=reference.training.name,
            held_out_split=reference.held_out.name,
            training_rows=len(reference.training),
            held_out_rows=len(reference.held_out),
            classes=dataset.classes,
            image_shape=dataset.shape,
            count=count,
            seed=request.seed if request.HasField("seed") else secrets.randbits(64),
            parameters=parameters,
            panels=panels,
            gates=tuple(request.gates),
            score=self._score(generator.model, panels),
            score_rows=max(1, min(MOST_SCORED, _SCORE_STEPS // generator.model.draw_steps)),
            code_version=version("fount"),
        )

    def _score(self, model: ServedModel, panels: Sequence[Panel]) -> str:
        """Return the column that rows are scored by; empty where memorisation or the caller's right to score lacks."""
        able = Operation.SCORE in model.operations and model.is_image and bool(model.score_columns)
        wanted = Panel.MEMORISATION in panels and self.caller.may(f"score:{model.key.name}")
        return model.score_columns[0] if able and wanted else ""

    def _refuse(self, refusal: FountServiceError) -> None:
        self.refusal = self.refusal or refusal

    def _find(self, role: str, ref: model_pb2.ModelRef) -> PinnedRole | None:
        """Find the model of a reference; None, with a problem noted, if there is none."""
        try:
            entry = self.catalog.find(ref.name, ref.version, ref.digest)
            target, model = self.catalog.choose(entry, _OPERATIONS[role], digest=ref.digest)
        except InvalidRequest as error:
            for each in error.violations:
                self.violations.append(replace(each, field=each.field.replace("model", role, 1)))
            return None
        except (NotReady, Retired) as error:
            self._refuse(error)
            return None
        return PinnedRole(target=target, model=model)

    def _reader_of(self, role: str, ref: model_pb2.ModelRef, reference: _Reference | None) -> PinnedRole | None:
        """Find the extractor or the classifier: the one named, or else the classifier of the reference."""
        if ref.ByteSize():
            return self._find(role, ref)
        if reference is None:  # its problem is noted
            return None
        if name := reference.classifier or self._only_reader(reference.dataset):
            return self._find(role, model_pb2.ModelRef(name=name))
        problem = f"data set {reference.dataset.name} has no classifier, and not exactly one model can read it"
        self.violations.add(role, f"{problem}; name a model, or give the data set a classifier with --data-sets")
        return None

    def _only_reader(self, dataset: Dataset) -> str:
        """Return the only served model that embeds and classifies images of a data set; empty: not exactly one does."""
        able = [entry.name for entry in self.catalog.entries() if entry.is_default and _can_read(entry.model, dataset)]
        return able[0] if len(able) == 1 else ""

    async def _reference(self, generator: PinnedRole | None) -> _Reference | None:
        """Open the data set and its splits; None, with a problem noted, if they do not exist."""
        reference = self.request.reference
        name = reference.dataset or await self._default_dataset(generator)
        if not name:
            return None
        try:
            settings = self.datasets.settings(name, field="reference.dataset")
        except InvalidRequest as error:
            self.violations += error.violations
            return None
        dataset = await self.datasets.open(name, field="reference.dataset")
        training = self._split(dataset, "training_split", reference.training_split or _TRAINING_SPLIT)
        held_out = self._split(dataset, "held_out_split", reference.held_out_split or _HELD_OUT_SPLIT)
        if training is None or held_out is None:
            return None
        if training is held_out:
            self.violations.add("reference.held_out_split", f"is {held_out.name!r}, which is also training_split")
        return _Reference(dataset=dataset, training=training, held_out=held_out, classifier=settings.classifier)

    async def _default_dataset(self, generator: PinnedRole | None) -> str:
        """Return the only data set of the generator's shape that a classifier can read.

        Data sets with a configured classifier are preferred. Empty, with a problem noted, if there is not exactly one.
        """
        if generator is None:
            return ""
        dims = generator.model.sample_dims
        usable = [self.datasets.settings(name) for name in self.datasets.names() if self.caller.may(f"dataset:{name}")]
        served = {entry.name: entry for entry in self.catalog.entries() if entry.is_default}
        classifiers = {each.name: served[each.classifier] for each in usable if each.classifier in served}
        fitting = [name for name, entry in classifiers.items() if entry.model and entry.model.sample_dims == dims]
        loading = [each for each in classifiers.values() if each.state in _LOADING and not each.model]
        if loading and not fitting:
            name, version = loading[0].name, loading[0].version
            message = f"{name} is not ready; name a data set, or try again in a moment"
            self._refuse(NotLoaded(message, model=(name, version)))
            return ""
        fitting = fitting or [each.name for each in usable if not each.classifier and await self._fits(each.name, dims)]
        if len(fitting) == 1:
            return fitting[0]
        kind = f"of {format_shape(dims)} that a served classifier can read"
        problem = f"there are several {kind}: {format_names(fitting)}" if fitting else f"there is none {kind}"
        self.violations.add("reference.dataset", f"name a data set: {problem}")
        return ""

    async def _fits(self, name: str, dims: tuple[int, ...]) -> bool:
        """Whether a data set can be opened, has that shape, and exactly one served model can read it."""
        try:
            dataset = await self.datasets.open(name)
        except DatasetUnreadable:
            return False
        return dataset.shape == dims and bool(self._only_reader(dataset))

    def _split(self, dataset: Dataset, role: str, name: str) -> DatasetSplit | None:
        split = dataset.splits.get(name)
        if split is None:
            existing = ", ".join(dataset.splits)
            problem = f"{dataset.name} has no split {name[:80]!r}; it has {existing}"
            self.violations.add(f"reference.{role}", problem, unknown=True)
        elif len(split) < _MIN_ROWS:
            self.violations.add(f"reference.{role}", f"must have at least {_MIN_ROWS} rows; {name} has {len(split)}")
        return split

    def _panels(self, conditional: bool | None) -> tuple[Panel, ...]:
        """Return the requested panels in the order of the report; `conditional` is None if the model is unknown."""
        chosen: set[Panel] = set()
        if len(self.request.panels) > len(Panel):
            count = len(self.request.panels)
            self.violations.add("panels", f"must name each of the {len(Panel)} panels at most once, got {count}")
            return ()
        for k, number in enumerate(self.request.panels):
            name, panel = f"panels[{k}]", _PANELS.get(number)
            if panel is None:
                self.violations.add(name, f"{number} is not a Panel")
            elif panel in chosen:
                self.violations.add(name, f"names {panel} a second time")
            elif panel is Panel.LABEL_FIDELITY and conditional is False:
                self.violations.add(
                    name, f"{self.request.model.name} is unconditional; {panel} is for models with labels"
                )
            chosen |= {panel} if panel else set()
        if not self.request.panels:
            chosen = {each for each in Panel if each is not Panel.LABEL_FIDELITY or conditional is not False}
        return tuple(each for each in Panel if each in chosen)

    def _count(self, panels: Sequence[Panel]) -> int:
        count = self.request.count or min(_DEFAULT_COUNT, self.max_samples)
        self.violations.check_range("count", count, _MIN_SAMPLES, self.max_samples)
        short = [f"{each} ({FEWEST_SAMPLES[each]})" for each in panels if count < FEWEST_SAMPLES[each]]
        if short and count >= _MIN_SAMPLES:
            problem = f"{count} samples are too few for {', '.join(short)}"
            self.violations.add("count", f"{problem}; draw more, or name other panels")
        return count

    def _check_gates(self, panels: Sequence[Panel], reference: _Reference | None) -> None:
        gates = self.request.gates
        if len(gates) > _MAX_GATES:
            self.violations.add("gates", f"must be at most {_MAX_GATES}, got {len(gates)}")
            return
        for k, text in enumerate(gates):
            if problem := _gate_problem(text, panels, reference.dataset.classes if reference else None):
                self.violations.add(f"gates[{k}]", problem)


def _can_read(model: ServedModel | None, dataset: Dataset) -> bool:
    return (
        model is not None
        and Operation.SAMPLE not in model.operations  # a generator that also classifies is no judge of generators
        and {Operation.EMBED, Operation.CLASSIFY} <= model.operations
        and model.sample_dims == dataset.shape
        and set(dataset.classes) <= set(model.labels)
    )


def _gate_problem(text: str, panels: Sequence[Panel], classes: Sequence[str] | None) -> str:
    """Return what is wrong with a gate; empty: nothing."""
    if len(text) > _MAX_GATE_CHARACTERS:
        return f"has {len(text)} characters; a gate has at most {_MAX_GATE_CHARACTERS}"
    try:
        gate = parse_gate(text)
    except ValueError as error:
        return str(error)
    if gate.panel not in panels:
        return f"{gate.metric} is of the panel {gate.panel}, which is not requested; add the panel, or remove the gate"
    if gate.class_name is not None and classes is not None and class_index(gate.class_name, classes) is None:
        return f"{gate.class_name[:80]!r} is not a class of the reference; its classes are {format_names(classes)}"
    return ""
