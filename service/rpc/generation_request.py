"""Read and write how models generate rows of a plan: its synthesis, translation and reconstruction.

The sections of a PlanDatasetRequest enter, from a client or from a ticket; a `GenerationSpec` of each leaves, with its
model found and everything left open filled in. `generation_to_message` writes one again.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from fount.readers import Dataset, DatasetSplit
from fount.v1 import augmentation_pb2, latent_pb2, sampling_pb2
from service.augmentation.plan_spec import SECTIONS, GenerationSpec, held_out_split
from service.augmentation.slots import Source
from service.catalog import PinnedModel, class_labels
from service.domain import Parameters
from service.latent.tasks import Reconstruct, Translate
from service.rpc.fields import Violations, read_label, read_parameters, reference_to_message
from service.rpc.plan_models import ModelFinder

__all__ = ["GENERATING_ROLES", "GenerationReader", "generation_to_message"]

GENERATING_ROLES = {
    Source.SYNTHESISED: "generator",
    Source.TRANSLATED: "translator",
    Source.RECONSTRUCTED: "autoencoder",
}
"""The role of the model that generates rows of each source."""

_ATTEMPTS, _CONFIDENCE, _QUANTILE = 8, 0.5, 0.01  # defaults
_MAX_ATTEMPTS = 64

_Section = Any
"""A Synthesis, Translation or Reconstruction; what they have in common has the same names."""


class GenerationReader:
    """Reads the sections of one request; what is wrong is appended to `wrong`, or noted in `models`."""

    def __init__(
        self,
        request: augmentation_pb2.PlanDatasetRequest,
        dataset: Dataset,
        split: DatasetSplit,
        models: ModelFinder,
        wrong: Violations,
    ) -> None:
        self._request, self._dataset, self._split = request, dataset, split
        self._models, self._wrong = models, wrong

    def read(self, source: Source) -> GenerationSpec | None:
        """Read the section of a source; None, with the reason noted, when it is missing or names no model."""
        section, role, wrong = SECTIONS[source], GENERATING_ROLES[source], self._wrong
        if not self._request.HasField(section):  # type: ignore[arg-type]  # one of its fields
            remedy = f"name {'an' if role[0] == 'a' else 'a'} {role} in {section}.model"
            wrong.add(section, f"is needed, for mix.{source.name.lower()} is above 0; {remedy}")
            return None
        given: _Section = getattr(self._request, section)
        attempts = given.attempts or _ATTEMPTS
        wrong.check_range(f"{section}.attempts", attempts, 1, _MAX_ATTEMPTS)
        quantile = self._read_quantile() if source is Source.SYNTHESISED else 0.0
        classifier = self._read_classifier(given, section)
        confidence = given.min_confidence if given.HasField("min_confidence") else _CONFIDENCE if classifier else 0.0
        model = self._models.find(role, given.model, f"{section}.model")
        draw, label = self._read_draw(source, given, model), self._read_label(source, given, model)
        if model is None or draw is None:
            return None
        return GenerationSpec(
            source=source,
            model=model,
            draw=draw,
            label=label,
            labels=self._labels(model, label),
            classifier=classifier,
            classifier_labels=class_labels(self._dataset, classifier.model if classifier else None),
            min_confidence=confidence,
            copy_quantile=quantile,
            attempts=attempts,
        )

    def _read_draw(
        self, source: Source, given: _Section, model: PinnedModel | None
    ) -> Parameters | Translate | Reconstruct | None:
        if source is Source.RECONSTRUCTED:
            if given.latents not in latent_pb2.Latents.values():
                self._wrong.add("reconstruction.latents", f"{given.latents} is not one of Latents")
            return Reconstruct(sampled=given.latents != latent_pb2.LATENTS_MEAN)
        if model is None:
            return None
        if source is Source.SYNTHESISED and not model.model.labels:
            problem = f"{model.model.key.name} is unconditional; name a conditional generator"
            self._wrong.add("synthesis.model", problem)
        field = f"{SECTIONS[source]}.parameters"
        parameters = read_parameters(given.parameters, field, model.model, self._wrong)
        return parameters if source is Source.SYNTHESISED else Translate(parameters=parameters)

    def _read_label(self, source: Source, given: _Section, model: PinnedModel | None) -> int | None:
        """Read the label that all rows are translated with; None: each has its own."""
        if source is not Source.TRANSLATED or model is None or not given.HasField("label"):
            return None
        name, labels = model.model.key.name, model.model.labels
        if not labels:
            self._wrong.add("translation.label", f"{name} has no labels; leave the label out")
            return None
        return read_label(given.label, "translation.label", name, labels, self._wrong)

    def _labels(self, model: PinnedModel, label: int | None) -> Any:
        if not model.model.labels:
            return None
        if label is not None:
            return np.full(len(self._dataset.classes), label, np.uint32)
        return class_labels(self._dataset, model.model)

    def _read_quantile(self) -> float:
        given, held_out = self._request.synthesis, held_out_split(self._dataset, self._split)
        field, quantile = "synthesis.copy_quantile", given.copy_quantile
        if not given.HasField("copy_quantile"):
            return _QUANTILE if held_out else 0.0
        self._wrong.check_range(field, quantile, 0, 0.5)
        if 0 < quantile <= 0.5 and held_out is None:
            self._wrong.add(field, f"must be 0: {self._dataset.name} has no other split to calibrate it on")
        return quantile

    def _read_classifier(self, given: _Section, section: str) -> PinnedModel | None:
        field = f"{section}.min_confidence"
        confidence = given.min_confidence if given.HasField("min_confidence") else _CONFIDENCE
        self._wrong.check_range(field, confidence, 0, 1)
        if confidence == 0:
            return None
        if given.HasField("classifier"):
            return self._models.find("classifier", given.classifier, f"{section}.classifier")
        found = self._models.find_default("classifier")
        if found is None and given.HasField("min_confidence") and self._models.refusal is None:
            self._wrong.add(field, f"must be 0: no classifier of {self._dataset.name} is served; or name one")
        return found


def generation_to_message(
    spec: GenerationSpec,
) -> augmentation_pb2.Synthesis | augmentation_pb2.Translation | augmentation_pb2.Reconstruction:
    """Write a specification, with every default filled in."""
    common: Any = {
        "model": reference_to_message(spec.model.model.key),
        "classifier": reference_to_message(spec.classifier.model.key) if spec.classifier else None,
        "min_confidence": spec.min_confidence,
        "attempts": spec.attempts,
    }
    match spec.draw:
        case Reconstruct(sampled=sampled):
            latents = latent_pb2.LATENTS_SAMPLED if sampled else latent_pb2.LATENTS_MEAN
            return augmentation_pb2.Reconstruction(**common, latents=latents)
        case Translate(parameters=parameters):
            label = None if spec.label is None else sampling_pb2.LabelRef(id=spec.label)
            return augmentation_pb2.Translation(**common, label=label, parameters=_parameters(parameters))
        case Parameters() as parameters:
            quantile = spec.copy_quantile
            return augmentation_pb2.Synthesis(**common, parameters=_parameters(parameters), copy_quantile=quantile)


def _parameters(parameters: Parameters) -> sampling_pb2.Parameters:
    return sampling_pb2.Parameters(**asdict(parameters))  # None is unset
