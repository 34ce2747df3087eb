"""From a plan as people write it, YAML or a mapping, to a `PlanDatasetRequest`; every wrong key is named at once.

Types, keys and choices are checked here. What depends on the data set or the models (classes, shapes, ranges, sums) is
the gateway's to judge, and comes back with the paths of the contract's fields, which are those of the file but for its
short forms: `target.balance`, `policy[0].rotate`.

    dataset: mnist
    target: {balance: largest}
    mix: {transformed: 1, synthesised: 1}
    policy: [{rotate: [0, 15], probability: 0.5}, {flip-horizontal: true}]
    synthesis: {model: mnist-cvae}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fount.augmentation.plan_reader import Reader
from fount.errors import FountError, InvalidRequest, NotFound
from fount.sampling.request import model_ref
from fount.v1 import augmentation_pb2, sampling_pb2

__all__ = ["REAL_MODES", "TRANSFORM_KINDS", "load_wishes", "plan_request", "policy_message"]

REAL_MODES = {
    "once": augmentation_pb2.RealRows.MODE_ONCE,
    "bootstrap": augmentation_pb2.RealRows.MODE_BOOTSTRAP,
    "poisson": augmentation_pb2.RealRows.MODE_POISSON,
    "none": augmentation_pb2.RealRows.MODE_NONE,
}
"""What `real` may be."""

TRANSFORM_KINDS = {
    name.removeprefix("KIND_").lower().replace("_", "-"): number
    for name, number in augmentation_pb2.Transform.Kind.items()
    if number
}
"""What a policy's transforms are called, as "flip-horizontal"."""

_FLIPS = ("flip-horizontal", "flip-vertical")
_TARGET_KINDS = ("balance", "factor", "counts", "weights")
_KEYS = (
    "dataset", "split", "seed", "target", "real", "mix", "policy", "synthesis", "verification", "shards",
    "time_to_live_hours",
)  # fmt: skip


def load_wishes(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read a plan file.

    Raises:
        NotFound: there is no such file, or it cannot be read.
        InvalidRequest: it is no YAML, or holds no mapping.
    """
    import yaml  # only who reads a file waits for it

    try:
        wishes = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"The plan {os.fspath(path)!r} cannot be read: {error.strerror or error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or no such date
        raise InvalidRequest(f"The plan {os.fspath(path)!r} is not YAML: {error}") from error
    if not isinstance(wishes, Mapping):
        raise InvalidRequest(f"The plan {os.fspath(path)!r} holds no mapping; begin with a line `dataset: NAME`.")
    return wishes


def plan_request(wishes: Mapping[str, Any]) -> augmentation_pb2.PlanDatasetRequest:
    """Build the request for a plan, whole and checked.

    Args:
        wishes: as in a plan file; `docs/augmentation.md` lists every key.

    Raises:
        InvalidRequest: keys or values are wrong; every one is named.
    """
    reader = Reader.of(wishes, _KEYS, required=("dataset",))
    request = augmentation_pb2.PlanDatasetRequest(
        dataset=reader.text("dataset"), split=reader.text("split"), shards=reader.whole("shards", 1, 65536) or 0
    )
    if (seed := reader.whole("seed", 0, 2**64 - 1)) is not None:
        request.seed = seed
    if (mode := reader.choice("real", REAL_MODES)) is not None:
        request.real.mode = mode
    if (hours := reader.real("time_to_live_hours")) is not None:
        _set_hours(request, hours, reader)
    if (target := reader.record("target", (*_TARGET_KINDS, "total", "by_group", "subsample"))) is not None:
        _set_target(request.target, target)
    if (mix := reader.record("mix", ("resampled", "transformed", "synthesised", "max_synthetic_ratio"))) is not None:
        _set_mix(request.mix, mix)
    if "policy" in reader:
        request.policy.CopyFrom(_policy(reader))
    _set_synthesis(request, reader)
    _set_verification(request, reader)
    reader.finish("The plan cannot be made:")
    return request


def policy_message(policy: object) -> augmentation_pb2.TransformPolicy:
    """Build a policy from its list, as under `policy` in a plan file, or a mapping that holds just this list.

    Raises:
        InvalidRequest: keys or values are wrong; every one is named.
    """
    if isinstance(policy, augmentation_pb2.TransformPolicy):
        return policy
    whole = policy if isinstance(policy, Mapping) else {"policy": policy}
    reader = Reader.of(whole, ("policy",), required=("policy",))
    message = _policy(reader)
    reader.finish("The policy cannot be used:")
    return message


def _set_hours(request: augmentation_pb2.PlanDatasetRequest, hours: float, reader: Reader) -> None:
    if not 0 < hours <= 30 * 24:
        reader.wrong("time_to_live_hours", f"is {hours:g}; it is above 0 and up to {30 * 24}, which is 30 days")
        return
    request.time_to_live.FromMilliseconds(round(hours * 3_600_000))


# --- Targets ----------------------------------------------------------------------------------------------------------


def _set_target(target: augmentation_pb2.Target, reader: Reader) -> None:
    target.by_group = reader.flag("by_group")
    target.subsample = reader.flag("subsample")
    given = [kind for kind in _TARGET_KINDS if kind in reader]
    if len(given) != 1:
        reader.wrong("", f"gives {' and '.join(given) or 'none'} of {', '.join(_TARGET_KINDS)}; give one of them")
        return
    if given != ["weights"] and "total" in reader:
        reader.wrong("total", "goes with weights alone; leave it out")
    {"balance": _set_balance, "factor": _set_factor, "counts": _set_counts, "weights": _set_weights}[given[0]](
        target, reader
    )


def _set_balance(target: augmentation_pb2.Target, reader: Reader) -> None:
    if reader.value("balance") == "largest":
        target.balance_to_largest = True
    else:
        target.balance_to_class.CopyFrom(_label(reader, "balance"))


def _set_factor(target: augmentation_pb2.Target, reader: Reader) -> None:
    target.factor = reader.real("factor") or 0.0


def _set_counts(target: augmentation_pb2.Target, reader: Reader) -> None:
    counts: list[augmentation_pb2.TargetCount] = []
    if isinstance(reader.value("counts"), Mapping):
        for name in reader.pairs("counts"):
            label = _name_of(name)
            counts.append(augmentation_pb2.TargetCount(label=label, count=reader.pair_whole("counts", name)))
    else:
        for entry in reader.records("counts", ("label", "group", "count"), required=("label", "count")):
            count = entry.whole("count", 0, 2**64 - 1) or 0
            label = _label(entry, "label")
            counts.append(augmentation_pb2.TargetCount(label=label, group=entry.text("group"), count=count))
    target.counts.counts.extend(counts)


def _set_weights(target: augmentation_pb2.Target, reader: Reader) -> None:
    if "total" not in reader:
        reader.wrong("total", "is missing; say how many rows the weights share")
    target.weights.total = reader.whole("total", 1, 2**64 - 1) or 0
    for name in reader.pairs("weights"):
        target.weights.weights.add(label=_name_of(name), weight=reader.pair_real("weights", name))


def _label(reader: Reader, key: str) -> sampling_pb2.LabelRef:
    if (value := reader.value(key)) is None:
        return sampling_pb2.LabelRef()
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        reader.wrong(key, f"is {value!r}; give a class by its name")
        return sampling_pb2.LabelRef()
    return _name_of(value)


def _name_of(value: str | int) -> sampling_pb2.LabelRef:
    """A class by name; YAML reads a class called 8 as a number, which is its name all the same."""
    return sampling_pb2.LabelRef(name=str(value))


# --- Mix, policy, synthesis, verification -----------------------------------------------------------------------------


def _set_mix(mix: augmentation_pb2.Mix, reader: Reader) -> None:
    mix.resampled = reader.real("resampled") or 0.0
    mix.transformed = reader.real("transformed") or 0.0
    mix.synthesised = reader.real("synthesised") or 0.0
    if (ratio := reader.real("max_synthetic_ratio")) is not None:
        mix.max_synthetic_ratio = ratio
    mix.SetInParent()


def _policy(reader: Reader) -> augmentation_pb2.TransformPolicy:
    policy = augmentation_pb2.TransformPolicy()
    for entry in reader.records("policy", ("probability", *TRANSFORM_KINDS)):
        named = [kind for kind in TRANSFORM_KINDS if kind in entry]
        if len(named) != 1:
            entry.wrong("", f"names {' and '.join(named) or 'no transform'}; name one of {', '.join(TRANSFORM_KINDS)}")
            continue
        low, high = _range(entry, named[0])
        transform = policy.transforms.add(kind=TRANSFORM_KINDS[named[0]], min=low, max=high)
        if (probability := entry.real("probability")) is not None:
            transform.probability = probability
    return policy


def _range(reader: Reader, kind: str) -> tuple[float, float]:
    if kind in _FLIPS:
        if reader.value(kind) is not True:
            reader.wrong(kind, f"is {reader.value(kind)!r}; a flip has no range: write `{kind}: true`")
        return 0.0, 0.0
    return reader.range(kind)


def _set_synthesis(request: augmentation_pb2.PlanDatasetRequest, reader: Reader) -> None:
    keys = ("model", "parameters", "classifier", "min_confidence", "copy_quantile", "attempts")
    if (record := reader.record("synthesis", keys, required=("model",))) is None:
        return
    synthesis = request.synthesis
    synthesis.SetInParent()
    synthesis.attempts = record.whole("attempts", 1, 64) or 0
    if (confidence := record.real("min_confidence")) is not None:
        synthesis.min_confidence = confidence
    if (quantile := record.real("copy_quantile")) is not None:
        synthesis.copy_quantile = quantile
    for key, model in (("model", synthesis.model), ("classifier", synthesis.classifier)):
        _set_model(model, record, key)
    _set_parameters(synthesis.parameters, record)


def _set_parameters(parameters: sampling_pb2.Parameters, reader: Reader) -> None:
    names = tuple(parameters.DESCRIPTOR.fields_by_name)
    if (record := reader.record("parameters", names)) is None:
        return
    for name in names:
        if name in ("top_k", "steps"):
            if (whole := record.whole(name, 0, 2**32 - 1)) is not None:
                setattr(parameters, name, whole)
        elif (real := record.real(name)) is not None:
            setattr(parameters, name, real)


def _set_verification(request: augmentation_pb2.PlanDatasetRequest, reader: Reader) -> None:
    if (record := reader.record("verification", ("classifier", "min_agreement", "rows"))) is None:
        return
    request.verification.SetInParent()
    request.verification.rows = record.whole("rows", 16, 4096) or 0
    if (agreement := record.real("min_agreement")) is not None:
        request.verification.min_agreement = agreement
    _set_model(request.verification.classifier, record, "classifier")


def _set_model(model: Any, reader: Reader, key: str) -> None:
    if not (text := reader.text(key)):
        return
    try:
        model.CopyFrom(model_ref(text))
    except FountError as error:
        reader.wrong(key, f'is "{text}": {error}')
