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

import difflib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fount.errors import FountError, InvalidRequest, NotFound
from fount.sampling.request import model_ref
from fount.v1 import augmentation_pb2, sampling_pb2

__all__ = ["REAL_MODES", "TRANSFORM_KINDS", "Reader", "load_wishes", "plan_request", "policy_message"]


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


# FOLDED FROM fount.augmentation.plan_file:
# Plain values, as YAML gives them, read key by key; problems are gathered under their paths, none is raised at
# once. Enters: a mapping and the keys it may have. Leaves: texts, numbers and nested readers, with neutral
# values where something is wrong, and one `InvalidRequest` that names everything.


_Choice = TypeVar("_Choice")
_Problems = list[tuple[str, str]]


class Reader:
    """One mapping of a file, and what is wrong within it. A key that is null is as good as left out."""

    def __init__(
        self, values: object, known: Sequence[str], *, required: Sequence[str], path: str, problems: _Problems
    ) -> None:
        self._path, self._problems = path, problems
        self._values: Mapping[Any, Any] = values if isinstance(values, Mapping) else {}
        if not isinstance(values, Mapping):
            self.wrong("", f"is {values!r}; write a mapping of {', '.join(known)}")
            return
        for key in values:
            if key not in known:
                self.wrong(str(key), f"is not known; {_meant(str(key), known)}")
        for key in required:
            if key not in self:
                self.wrong(key, "is missing")

    @classmethod
    def of(cls, values: object, known: Sequence[str], *, required: Sequence[str] = ()) -> Reader:
        """Read a whole file."""
        return cls(values, known, required=required, path="", problems=[])

    def __contains__(self, key: object) -> bool:
        return self._values.get(key) is not None

    def wrong(self, key: str, text: str) -> None:
        """Note what is wrong with a key of this mapping; with "", with the mapping itself."""
        self._problems.append((".".join(part for part in (self._path, key) if part) or "(the whole)", text))

    def finish(self, message: str) -> None:
        """Take note that everything was read.

        Raises:
            InvalidRequest: something was wrong; every problem is named.
        """
        if self._problems:
            raise InvalidRequest(message, fields=self._problems)

    def value(self, key: str) -> Any:
        """What stands there, as it is."""
        return self._values.get(key)

    def text(self, key: str) -> str:
        """A text; "" when it is left out."""
        value = self.value(key)
        if value is None or isinstance(value, str):
            return value or ""
        self.wrong(key, f"is {value!r}, not a text; put it in quotes")
        return ""

    def flag(self, key: str) -> bool:
        """True or false; false when it is left out."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            self.wrong(key, f"is {value!r}; write true or false")
        return value is True

    def whole(self, key: str, least: int, most: int) -> int | None:
        """A whole number; None when it is left out, or wrong."""
        return self._whole(key, self.value(key), least, most)

    def real(self, key: str) -> float | None:
        """A finite number; None when it is left out, or wrong."""
        return self._real(key, self.value(key))

    def choice(self, key: str, choices: Mapping[str, _Choice]) -> _Choice | None:
        """One of some words; None when it is left out, or wrong."""
        value = self.value(key)
        if value is None or (isinstance(value, str) and value in choices):
            return None if value is None else choices[value]
        self.wrong(key, f"is {value!r}; {_meant(str(value), tuple(choices))}")
        return None

    def range(self, key: str) -> tuple[float, float]:
        """Two finite numbers, [least, most]; (0, 0) when they are wrong."""
        value = self.value(key)
        if not isinstance(value, list | tuple) or len(value) != 2:
            self.wrong(key, f"is {value!r}; write its range, as [least, most]")
            return 0.0, 0.0
        low, high = (self._real(f"{key}[{i}]", each) for i, each in enumerate(value))
        return low or 0.0, high or 0.0

    def record(self, key: str, known: Sequence[str], *, required: Sequence[str] = ()) -> Reader | None:
        """A mapping within this one; None when it is left out."""
        return self._child(key, self.value(key), known, required) if key in self else None

    def records(self, key: str, known: Sequence[str], *, required: Sequence[str] = ()) -> list[Reader]:
        """A list of mappings; empty when it is left out, or wrong."""
        value = self.value(key)
        if not isinstance(value, list | tuple):
            if value is not None:
                self.wrong(key, f"is {value!r}; write a list")
            return []
        return [self._child(f"{key}[{i}]", each, known, required) for i, each in enumerate(value)]

    def pairs(self, key: str) -> Iterator[str | int]:
        """The keys of a mapping whose keys are names, as of classes; none when it is wrong."""
        value = self.value(key)
        if not isinstance(value, Mapping):
            self.wrong(key, f"is {value!r}; write a mapping from class names")
            return
        for name in value:
            if isinstance(name, bool) or not isinstance(name, str | int):
                self.wrong(f"{key}.{name}", "is no class name; put it in quotes")
            else:
                yield name

    def pair_whole(self, key: str, name: str | int) -> int:
        """The whole number, 0 or more, that stands under a name; 0 when it is wrong."""
        return self._whole(f"{key}.{name}", self.value(key)[name], 0, 2**64 - 1, absent=False) or 0

    def pair_real(self, key: str, name: str | int) -> float:
        """The number that stands under a name; 0 when it is wrong."""
        return self._real(f"{key}.{name}", self.value(key)[name], absent=False) or 0.0

    def _child(self, key: str, value: object, known: Sequence[str], required: Sequence[str]) -> Reader:
        path = f"{self._path}.{key}" if self._path else key
        return Reader(value, known, required=required, path=path, problems=self._problems)

    def _whole(self, key: str, value: object, least: int, most: int, *, absent: bool = True) -> int | None:
        if value is None and absent:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.wrong(key, f"is {value!r}; it is a whole number from {least} to {most}")
            return None
        return value

    def _real(self, key: str, value: object, *, absent: bool = True) -> float | None:
        if value is None and absent:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            self.wrong(key, f"is {value!r}; it is a finite number")
            return None
        return float(value)


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"it may be {', '.join(known)}"
