"""Plan specifications: read from a YAML file or a mapping, checked, and converted to a `PlanDatasetRequest`.

Types, keys, choices and policies are checked here, and every problem is reported at once with its path. What depends on
the data set or the models (classes, shapes, sums) is checked by the gateway.

    dataset: mnist
    target: {balance: largest}
    mix: {transformed: 1, synthesised: 1}
    policy: [{rotate: [0, 15], probability: 0.5}, {flip-horizontal: true}]
    synthesis: {model: mnist-cvae}

Rows that a model translates, or encodes and decodes:

    mix: {translated: 1, reconstructed: 1}
    translation: {model: sketches, label: to-photo}
    reconstruction: {model: mnist-vae}
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, Discriminator, Tag

from fount.augmentation.shards import MAX_SHARDS
from fount.documents import DocumentError, Problem, check, parse, record
from fount.errors import InvalidRequest, NotFound
from fount.names import normal_name
from fount.plain_yaml import read_yaml
from fount.sampling.arguments import UINT32_MAX, UINT64_MAX
from fount.sampling.request import model_ref
from fount.transforms import Policy, PolicyDocument
from fount.v1 import augmentation_pb2, latent_pb2, sampling_pb2

__all__ = [
    "REAL_MODES", "AnyPlanSpec", "PlanSpec", "load_plan_file", "load_policy_file", "named_classes", "plan_request",
    "policy_message",
]  # fmt: skip

REAL_MODES = {
    "once": augmentation_pb2.RealRows.MODE_ONCE,
    "bootstrap": augmentation_pb2.RealRows.MODE_BOOTSTRAP,
    "poisson": augmentation_pb2.RealRows.MODE_POISSON,
    "none": augmentation_pb2.RealRows.MODE_NONE,
}
"""The values of `real`."""

_LATENTS = {"sampled": latent_pb2.LATENTS_SAMPLED, "mean": latent_pb2.LATENTS_MEAN}

_T = TypeVar("_T")
_TARGET_KINDS = ("balance", "factor", "counts", "weights")
_MAX_HOURS = 30 * 24
_MAX_FILE_BYTES = 2**24  # room for comments; `fount.plain_yaml` bounds the values


def _whole(low: int, high: int) -> Any:
    return check(lambda number: low <= number <= high, f"must be a whole number from {low} to {high}")


def _check_model(text: str) -> str:
    try:
        model_ref(text)
    except InvalidRequest as error:
        raise ValueError(error.fields[0][1]) from error
    return text


Uint32 = Annotated[int, _whole(0, UINT32_MAX)]
Uint64 = Annotated[int, _whole(0, UINT64_MAX)]
ModelName = Annotated[str, AfterValidator(_check_model)]
Attempts = Annotated[int, _whole(1, 64)]
ClassName = Annotated[str, check(bool, "must be the name of a class")]
Hours = Annotated[float, check(lambda hours: 0 < hours <= _MAX_HOURS, f"must be above 0 and up to {_MAX_HOURS}")]


@record
class CountSpec:
    """The number of rows of one class, or of one of its groups."""

    label: ClassName
    count: Uint64
    group: str | None = None


Counts = Annotated[
    Annotated[dict[ClassName, Uint64], Tag("[mapping]")] | Annotated[tuple[CountSpec, ...], Tag("[list]")],
    Discriminator(lambda value: "[mapping]" if isinstance(value, Mapping) else "[list]"),
]
"""Counts by class, {"8": 6000}, or a list of `CountSpec`, which can also name groups."""


@record
class TargetSpec:
    """How many rows each class gets: exactly one of `balance`, `factor`, `counts` and `weights`.

    Attributes:
        balance: "largest", or the class whose size every class gets.
        factor: times the rows that a class has.
        counts: rows by class.
        weights: shares of `total` by class.
        total: rows in all; with `weights` alone.
        by_group: apply the target to every group of a class.
        subsample: also make classes smaller.
    """

    balance: ClassName | None = None
    factor: float | None = None
    counts: Counts | None = None
    weights: dict[ClassName, float] | None = None
    total: Annotated[int, _whole(1, UINT64_MAX)] | None = None
    by_group: bool | None = None
    subsample: bool | None = None


@record
class MixSpec:
    """Relative weights of the sources of additional rows."""

    resampled: float | None = None
    transformed: float | None = None
    synthesised: float | None = None
    translated: float | None = None
    reconstructed: float | None = None
    max_synthetic_ratio: float | None = None


@record
class ParametersSpec:
    """Sampling parameters of synthesised or translated rows, as in `fount.v1.Parameters`."""

    truncation: float | None = None
    temperature: float | None = None
    top_k: Uint32 | None = None
    top_p: float | None = None
    guidance_scale: float | None = None
    steps: Uint32 | None = None
    importance_samples: Uint32 | None = None
    prior_fit: float | None = None
    eta: float | None = None


@record
class SynthesisSpec:
    """Which generator makes synthesised rows, and which of its samples are rejected."""

    model: ModelName
    parameters: ParametersSpec | None = None
    classifier: ModelName | None = None
    min_confidence: float | None = None
    copy_quantile: float | None = None
    attempts: Attempts | None = None


@record
class TranslationSpec:
    """Which model translates rows of the data set, to which of its labels, and which translations are rejected."""

    model: ModelName
    label: ClassName | None = None
    parameters: ParametersSpec | None = None
    classifier: ModelName | None = None
    min_confidence: float | None = None
    attempts: Attempts | None = None


@record
class ReconstructionSpec:
    """Which model encodes and decodes rows of the data set, from which latents, and which results are rejected."""

    model: ModelName
    latents: Literal["sampled", "mean"] | None = None
    classifier: ModelName | None = None
    min_confidence: float | None = None
    attempts: Attempts | None = None


@record
class VerificationSpec:
    """How the policy is checked to keep labels."""

    classifier: ModelName | None = None
    min_agreement: float | None = None
    rows: Annotated[int, _whole(16, 4096)] | None = None


@record
class PlanSpec:
    """A plan specification; `docs/augmentation.md` describes every key. None leaves a choice to the gateway."""

    dataset: str
    split: str | None = None
    seed: Uint64 | None = None
    target: TargetSpec | None = None
    real: Literal["once", "bootstrap", "poisson", "none"] | None = None
    mix: MixSpec | None = None
    policy: PolicyDocument | None = None
    synthesis: SynthesisSpec | None = None
    translation: TranslationSpec | None = None
    reconstruction: ReconstructionSpec | None = None
    verification: VerificationSpec | None = None
    shards: Annotated[int, _whole(1, MAX_SHARDS)] | None = None
    time_to_live_hours: Hours | None = None


@record
class _PolicySpec:
    policy: PolicyDocument


AnyPlanSpec = PlanSpec | Mapping[str, Any] | augmentation_pb2.PlanDatasetRequest
"""A plan specification in any form: parsed, as a mapping like a plan file, or as the request itself."""


def load_plan_file(path: str | os.PathLike[str], *, pipes: bool = False) -> PlanSpec:
    """Read a plan file, which may be a pipe where `pipes` says so: `fount plan <(command)` gives one.

    Raises:
        NotFound: it cannot be read.
        InvalidRequest: it is not a plan; every problem is reported.
    """
    document = _read("plan", path, pipes=pipes)
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"The plan {os.fspath(path)!r} holds no mapping; begin with a line `dataset: NAME`.")
    return _parse_plan(document, f"The plan {os.fspath(path)!r} is wrong:")


def named_classes(spec: PlanSpec) -> tuple[str, ...]:
    """Return the classes that the target of a plan names, by name or by index."""
    target = spec.target
    if target is None:
        return ()
    balance = () if target.balance in (None, "largest") else (target.balance,)
    return (*balance, *(each.label for each in _count_list(target.counts or ())), *(target.weights or ()))


def load_policy_file(path: str | os.PathLike[str]) -> augmentation_pb2.TransformPolicy:
    """Read a file, or a pipe, with a policy alone or under its key `policy`; errors as in `load_plan_file`."""
    return policy_message(_read("policy", path, pipes=True))


def plan_request(spec: AnyPlanSpec) -> augmentation_pb2.PlanDatasetRequest:
    """Build the request for a plan; an InvalidRequest reports every wrong key and value of a mapping."""
    if isinstance(spec, augmentation_pb2.PlanDatasetRequest):
        return spec
    if isinstance(spec, Mapping):
        spec = _parse_plan(_with_text_names(spec), "The plan cannot be made:")
    if not isinstance(spec, PlanSpec):
        raise TypeError(f"spec must be a mapping, a PlanSpec or a PlanDatasetRequest, got {type(spec).__name__}")
    request = augmentation_pb2.PlanDatasetRequest(
        dataset=spec.dataset,
        split=spec.split or "",
        seed=spec.seed,
        target=_target(spec.target) if spec.target else None,
        real=augmentation_pb2.RealRows(mode=REAL_MODES[spec.real]) if spec.real else None,
        mix=_message(augmentation_pb2.Mix, spec.mix),
        policy=_policy(spec.policy) if spec.policy else None,
        synthesis=_message(augmentation_pb2.Synthesis, spec.synthesis),
        translation=_message(augmentation_pb2.Translation, spec.translation),
        reconstruction=_message(augmentation_pb2.Reconstruction, spec.reconstruction),
        verification=_message(augmentation_pb2.Verification, spec.verification),
        shards=spec.shards or 0,
    )
    if spec.time_to_live_hours is not None:
        request.time_to_live.FromMilliseconds(round(spec.time_to_live_hours * 3_600_000))
    return request


def policy_message(
    policy: Sequence[Mapping[str, Any]] | Mapping[str, Any] | augmentation_pb2.TransformPolicy,
) -> augmentation_pb2.TransformPolicy:
    """Build a policy from its list, as under `policy` in a plan file, or from a mapping that holds only this list."""
    if isinstance(policy, augmentation_pb2.TransformPolicy):
        return policy
    try:
        return _policy(parse(_PolicySpec, policy if isinstance(policy, Mapping) else {"policy": policy}).policy)
    except DocumentError as error:
        _refuse("The policy cannot be used:", error)


def _read(kind: str, path: str | os.PathLike[str], *, pipes: bool) -> Any:
    try:
        return read_yaml(Path(path), _MAX_FILE_BYTES, pipes=pipes)
    except OSError as error:
        raise NotFound(f"The {kind} {os.fspath(path)!r} cannot be read: {error.strerror or error}.") from error
    except DocumentError as error:
        raise InvalidRequest(f"The {kind} {os.fspath(path)!r} {error}") from error


def _parse_plan(document: Mapping[str, Any], failure: str) -> PlanSpec:
    try:
        return parse(PlanSpec, document, _contradictions)
    except DocumentError as error:
        _refuse(failure, error)


def _refuse(failure: str, error: DocumentError) -> NoReturn:
    fields = [(each.key or "(the whole)", f"{each.wrong}; {each.remedy}") for each in error.problems]
    raise InvalidRequest(failure, fields=fields) from error


def _with_text_names(value: Any) -> Any:
    """Turn whole numbers that stand for classes in a mapping of Python's into text, as a plan file is read."""
    if isinstance(value, Mapping):
        return {
            str(key) if type(key) is int else key:
            str(item) if key in ("balance", "label") and type(item) is int else _with_text_names(item)
            for key, item in value.items()
        }  # fmt: skip
    return [_with_text_names(item) for item in value] if isinstance(value, list | tuple) else value


def _contradictions(spec: PlanSpec) -> Iterator[Problem]:
    target = spec.target
    if target is None:
        return
    given = [kind for kind in _TARGET_KINDS if getattr(target, kind) is not None]
    if len(given) != 1:
        wrong = f"gives {' and '.join(given) or 'none'} of {', '.join(_TARGET_KINDS)}"
        yield Problem(key="target", wrong=wrong, remedy="give one of them")
    elif given == ["weights"] and target.total is None:
        yield Problem(key="target.total", wrong="is missing", remedy="give the number of rows that the weights share")
    elif given != ["weights"] and target.total is not None:
        yield Problem(key="target.total", wrong="goes with weights alone", remedy="leave it out")


def _target(spec: TargetSpec) -> augmentation_pb2.Target:
    target = augmentation_pb2.Target(by_group=bool(spec.by_group), subsample=bool(spec.subsample))
    if spec.factor is not None:
        target.factor = spec.factor
    elif spec.balance == "largest":
        target.balance_to_largest = True
    elif spec.balance is not None:
        target.balance_to_class.name = normal_name(spec.balance)
    elif spec.counts is not None:
        target.counts.SetInParent()
        for each in _count_list(spec.counts):
            group = None if each.group is None else normal_name(each.group)
            target.counts.counts.add(label={"name": normal_name(each.label)}, group=group, count=each.count)
    elif spec.weights is not None:
        target.weights.total = spec.total or 0
        for label, weight in spec.weights.items():
            target.weights.weights.add(label={"name": normal_name(label)}, weight=weight)
    return target


def _count_list(counts: Counts) -> Sequence[CountSpec]:
    if isinstance(counts, Mapping):
        return [CountSpec(label=label, count=count) for label, count in counts.items()]
    return counts


def _policy(policy: Policy) -> augmentation_pb2.TransformPolicy:
    transforms = [augmentation_pb2.Transform(**asdict(transform)) for transform in policy.transforms]
    return augmentation_pb2.TransformPolicy(transforms=transforms)


def _message(kind: type[_T], spec: object | None) -> _T | None:
    """Build a message from a record with the same field names; None: leave it unset."""
    if spec is None:
        return None
    values = {name: value for name, value in vars(spec).items() if value is not None}
    values |= {name: model_ref(values[name]) for name in ("model", "classifier") if name in values}
    if "label" in values:
        values["label"] = sampling_pb2.LabelRef(name=normal_name(values["label"]))
    if "latents" in values:
        values["latents"] = _LATENTS[values["latents"]]
    if "parameters" in values:
        values["parameters"] = _message(sampling_pb2.Parameters, values["parameters"])
    return kind(**values)
