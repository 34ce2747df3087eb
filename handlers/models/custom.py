"""Custom models: any torch module of the user that turns z, and perhaps a label, into images, wrapped as a family.

The module's method `sample` is called if it has one, else the module itself: with z, then the label if the card has
classes, then by name whatever else the signature takes of what a worker provides. The signature is read when the model
is loaded, so a module that cannot be called is refused then, with the reason. How z is drawn and passed is part of
`handlers.versions.EXECUTION_VERSION`.

Other operations of the card call methods of their names: encode, decode, score, classify, embed and translate, with
images or latents, then the label if the card has classes and the method takes one. A translate that draws takes z by
name, of the card's latent shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Given, Noise

__all__ = ["METHODS", "CallSignature", "CustomModel", "call_module", "values_by_name"]

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "ENCODE": "encode",
        "DECODE": "decode",
        "SCORE": "score",
        "CLASSIFY": "classify",
        "EMBED": "embed",
        "TRANSLATE": "translate",
    }
)
"""Operations of a custom model besides SAMPLE, and the methods that they call."""

_DRAW_NAMES = ("temperature", "top_k", "top_p", "guidance_scale", "steps", "eta", "prior_fit", "importance_samples")
_SCORE_NAMES = ("importance_samples",)  # of parameters that SCORE takes; SAMPLE takes them if there is no SCORE
_WHOLE_NUMBERS = ("top_k", "steps", "importance_samples")
_OTHER_NAMES = ("noise", "check_deadline")
_DRAWN = "z"  # of a method that reads images
_TRUNCATION = "truncation"  # applied to z before the module gets it
_LABEL_NAMES = ("label", "labels", "y", "class_labels")
_NONE: Mapping[str, object] = MappingProxyType({})
_P = inspect.Parameter
_POSITIONAL = (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)
_NAMED = (*_POSITIONAL, _P.KEYWORD_ONLY)


@dataclass(frozen=True, kw_only=True)
class CallSignature:
    """How a module is called.

    Attributes:
        text: the method with its signature, for messages, like "Generator.sample(z, label)".
        method: "sample", "forward" or another method of an operation.
        passed: arguments in order: the parameter's name, the value it gets ("read", which is what an operation reads,
            "label" or a name of `values_by_name`), and whether it may be passed by position.
    """

    text: str
    method: str
    passed: tuple[tuple[str, str, bool], ...]

    @classmethod
    def read(
        cls,
        module: nn.Module,
        *,
        labelled: bool,
        listed: Mapping[str, float | None] | None = None,
        method: str | None = None,
    ) -> Self:
        """Read a module's signature.

        Args:
            module: a custom module, or a program.
            labelled: whether the card has classes.
            listed: the card's parameters with their defaults; None skips the checks against them.
            method: of another operation than SAMPLE; the module has it.

        Raises:
            ValueError: it cannot be called so; the message names the method, the parameter and the remedy.
        """
        needs_label = method in (None, "decode", "translate")
        first = "z" if method in (None, "decode") else "x"
        if method is None:
            method = "sample" if callable(getattr(module, "sample", None)) else "forward"
        if getattr(type(module), method, None) is nn.Module.forward:
            raise ValueError(f"{type(module).__name__} has neither sample nor forward; add sample(self, z)")
        parameters = _parameters_of(getattr(module, method))
        untyped = inspect.Signature([p.replace(annotation=_P.empty) for p in parameters])
        name = getattr(module, "original_name", type(module).__name__)  # original_name: the class of TorchScript
        text = f"{name}.{method}{untyped}"
        named = [p for p in parameters if p.kind in _NAMED]
        roles = _find_roles(text, named, first, labelled=labelled, needs_label=needs_label)
        required = [p.name for p in named if roles.get(p.name) == "label" and p.default is _P.empty]
        if method == "score" and required:
            remedy = f"give {required[0]} the default None, with which it returns log p(x)"
            raise ValueError(f"{text} needs {required[0]}, but rows are scored without labels, too; {remedy}")
        others = [p for p in named if p.name not in roles]
        provided = (*_DRAW_NAMES, *_OTHER_NAMES, *([_DRAWN] if method == "translate" else []))
        if listed is not None:
            _check_others(text, others, listed, provided)
        roles |= {p.name: p.name for p in others if p.name in provided}
        passed = tuple((p.name, roles[p.name], p.kind in _POSITIONAL) for p in named if p.name in roles)
        return cls(text=text, method=method, passed=passed)

    def call(self, module: nn.Module, values: Mapping[str, object]) -> Any:
        """Call a module with the values that it takes; a value of None is left to the module's own default."""
        positional: list[object] = []
        by_name: dict[str, object] = {}
        in_order = True
        for name, role, may_be_positional in self.passed:
            value = values.get(role)
            in_order = in_order and may_be_positional and value is not None
            if in_order:
                positional.append(value)
            elif value is not None:
                by_name[name] = value
        function = module if self.method == "forward" else getattr(module, self.method)
        return function(*positional, **by_name)


class CustomModel(nn.Module):
    """A custom module, or a program, as a family with the operations of its card."""

    def __init__(
        self,
        module: nn.Module,
        latent_shape: Sequence[int],
        *,
        labelled: bool,
        listed: Mapping[str, float | None],
        operations: Sequence[str] = ("SAMPLE",),
    ) -> None:
        """Wrap a module.

        Args:
            module: with its weights.
            latent_shape: the card's; z is (B, *latent_shape).
            labelled: whether the card has classes.
            listed: the card's parameters with their defaults.
            operations: the card's.

        Raises:
            ValueError: the module cannot be called so, or lacks the method of an operation.
        """
        super().__init__()
        self.module = module
        self.latent_shape = tuple(latent_shape)
        self.defaults = {name: _convert_default(name, value) for name, value in listed.items() if name in _DRAW_NAMES}
        scored = {name: value for name, value in listed.items() if name in _SCORE_NAMES and "SCORE" in operations}
        self.signatures: dict[str, CallSignature] = {}
        drawn = {name: value for name, value in listed.items() if name not in scored}
        if "SAMPLE" in operations:
            self.signatures["sample"] = CallSignature.read(module, labelled=labelled, listed=drawn)
        for operation in (each for each in METHODS if each in operations):
            method = METHODS[operation]
            if not callable(getattr(module, method, None)):
                wrong = f"{type(module).__name__} has no method {method}, the card lists {operation}"
                raise ValueError(f"{wrong}; add {method}(self, ...), or remove {operation} from operations")
            read = CallSignature.read(
                module,
                labelled=labelled and operation not in ("CLASSIFY", "EMBED"),
                listed={"SCORE": scored, "TRANSLATE": drawn}.get(operation, {}),
                method=method,
            )
            self.signatures[method] = read

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Refuse: a custom model is built from its own file.

        Raises:
            ValueError: always.
        """
        raise ValueError("a custom model is built from its own file; set family.source")

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row.

        Args:
            noise: B addresses; z is their stream LATENT.
            labels: (B,) int64, or None when unconditional.
            draw: truncation bounds z; the others are passed if the module takes them.
            deadline: checked once, and by the module if it takes `check_deadline`.

        Returns:
            (B, C, H, W) floating: whatever the module returns.

        Raises:
            TypeError: the module did not return a tensor.
            DeadlinePassed: the deadline passed.
        """
        z = noise.normal(Stream.LATENT, self.latent_shape, truncation=draw.truncation)
        deadline.check()
        return self._call("sample", z, labels, self._values(noise, draw, deadline))

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Call the module's `encode`, which returns the mean and the log of the variance, or the code alone.

        Raises:
            TypeError: it returned something else.
        """
        signature = self.signatures["encode"]
        found = signature.call(self.module, {"read": images, "label": labels})
        if isinstance(found, Tensor):
            return found, None
        if isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(part, Tensor) for part in found):
            return found[0], found[1]
        returned = f"{signature.text} returned a {type(found).__name__}"
        raise TypeError(f"{returned}; return a tensor (B, latent_dim), or two: the mean and the log of the variance")

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Call the module's `decode`."""
        return self._call("decode", z, labels)

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Call the module's `score`; (B,) is one column."""
        deadline.check()
        scores = self._call("score", images, labels, self._values(noise, draw, deadline))
        return scores[:, None] if scores.ndim == 1 else scores

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Call the module's `translate`, with z if it takes one."""
        deadline.check()
        values = self._values(noise, draw, deadline)
        if any(role == _DRAWN for _, role, _ in self.signatures["translate"].passed):
            values[_DRAWN] = noise.normal(Stream.LATENT, self.latent_shape, truncation=draw.truncation)
        return self._call("translate", given.values, labels, values)

    def classify(self, images: Tensor) -> Tensor:
        """Call the module's `classify`."""
        return self._call("classify", images, None)

    def embed(self, images: Tensor) -> Tensor:
        """Call the module's `embed`."""
        return self._call("embed", images, None)

    def _call(self, method: str, values: Tensor, labels: Tensor | None, others: Mapping[str, object] = _NONE) -> Tensor:
        signature = self.signatures[method]
        found = signature.call(self.module, {"read": values, "label": labels, **others})
        if not isinstance(found, Tensor):
            shape = " (B, C, H, W)" if method in ("sample", "decode", "translate") else ", with a row for each row of x"
            raise TypeError(f"{signature.text} returned a {type(found).__name__}; return one tensor{shape}")
        return found

    def _values(self, noise: Noise, draw: Draw, deadline: Deadline) -> dict[str, object]:
        """Collect what a module may take in addition, with the card's defaults for what is unset.

        Golden samples and profiles are drawn without parameters; a request has the defaults filled in already.
        """
        values = values_by_name(noise, draw, deadline, self.latent_shape)
        return values | {name: value for name, value in self.defaults.items() if values[name] is None}


def call_module(module: nn.Module, z: Tensor, labels: Tensor | None, values: Mapping[str, object] | None = None) -> Any:
    """Call a custom module as a worker does.

    Args:
        module: a custom module or a program, in evaluation mode.
        z: (B, *latent_shape) floating.
        labels: (B,) int64, or None when unconditional.
        values: further arguments by name, as `values_by_name` returns them.

    Returns:
        What the module returns, which should be (B, C, H, W) floating.
    """
    signature = CallSignature.read(module, labelled=labels is not None)
    return signature.call(module, {"read": z, "label": labels} | dict(values or {}))


def values_by_name(noise: Noise, draw: Draw, deadline: Deadline, latent_shape: Sequence[int]) -> dict[str, object]:
    """Collect what a module may take in addition to z and the label.

    Returns:
        temperature, top_k, top_p, guidance_scale, steps, eta, prior_fit and importance_samples, None if unset;
        `noise(step)`, which returns (B, *latent_shape), N(0, 1), different at every step; and `check_deadline()`.
    """

    def draw_step(step: int) -> Tensor:
        return noise.normal(Stream.STEP, tuple(latent_shape), step=step)

    drawn: dict[str, object] = {name: getattr(draw, name) for name in _DRAW_NAMES}
    return drawn | {"noise": draw_step, "check_deadline": deadline.check}


def _convert_default(name: str, value: float | None) -> float | None:
    """Convert a card's default to the type of a request's."""
    return int(value) if value is not None and name in _WHOLE_NUMBERS else value


def _find_roles(
    text: str, named: Sequence[inspect.Parameter], first: str, *, labelled: bool, needs_label: bool
) -> dict[str, str]:
    """Find the parameters that get what is read and the label: by name, else by position."""
    named_label = next((p for p in named if p.name in _LABEL_NAMES), None)
    free = [p for p in named if p is not named_label]
    if not free or free[0].kind not in _POSITIONAL:
        raise ValueError(f"{text} takes no {first}; make {first} its first parameter")
    reserved = (*_DRAW_NAMES, *_OTHER_NAMES, _TRUNCATION, _DRAWN)
    second = next((p for p in free[1:] if p.kind in _POSITIONAL and p.name not in reserved), None)
    label = named_label or second
    if labelled and label is None and needs_label:
        remedy = "add a second parameter for it, or remove classes and prior from the card"
        raise ValueError(f"{text} takes no label, the card has classes; {remedy}")
    if not labelled and label is not None and label.default is _P.empty:
        remedy = "add classes and prior to the card, or give the parameter a default"
        raise ValueError(f"{text} takes {label.name} after {first}, the card has no classes; {remedy}")
    return {free[0].name: "read"} | ({label.name: "label"} if labelled and label else {})


def _check_others(
    text: str, others: Sequence[inspect.Parameter], listed: Mapping[str, float | None], provided: Sequence[str]
) -> None:
    """Check that other required parameters are available, and that what the card lists is taken."""
    for parameter in others:
        name, required = parameter.name, parameter.default is _P.empty
        if required and name == _TRUNCATION:
            remedy = "remove the parameter, or give it a default"
            raise ValueError(f"{text} needs truncation, but the z it gets is truncated already; {remedy}")
        if required and name not in provided:
            known = ", ".join(provided)
            raise ValueError(f"{text} needs {name}, which workers do not provide; give it a default, or use {known}")
        if required and name in _DRAW_NAMES and listed.get(name) is None:
            remedy = f"add {name} with a default to the card's parameters, or give it a default in the signature"
            raise ValueError(f"{text} needs {name}, for which the card has no default; {remedy}")
    for name in listed:
        if name != _TRUNCATION and name not in [parameter.name for parameter in others]:
            raise ValueError(f"the card lists {name}, {text} does not take it; remove it from the card, or take it")


def _parameters_of(function: Any) -> list[inspect.Parameter]:
    """List a method's parameters; those of TorchScript are in its schema."""
    if (schema := getattr(function, "schema", None)) is None:
        return list(inspect.signature(function).parameters.values())
    return [
        _P(
            argument.name,
            _P.KEYWORD_ONLY if argument.kwarg_only else _P.POSITIONAL_OR_KEYWORD,
            default=argument.default_value if argument.has_default_value() else _P.empty,
        )
        for argument in schema.arguments[1:]  # the first is self
    ]
