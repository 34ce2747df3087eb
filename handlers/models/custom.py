"""Modules of one's own: any torch module that turns z, and perhaps a label, into pictures, made a sampler.

The module's method `sample` is called, or else the module itself: z, then the label where the card has classes, then
whatever else it takes by name of what a worker knows. All of it is read from the signature when the model is loaded, so
that a module that cannot be called is refused there and in plain words. How z is drawn and given is part of
`handlers.versions.EXECUTION_VERSION`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise

__all__ = ["CallSignature", "CustomSampler", "call_module", "values_by_name"]

_DRAWN = ("temperature", "top_k", "top_p", "guidance_scale", "steps")
_GIVEN = ("noise", "check_deadline")
_APPLIED = "truncation"  # to z, before a module gets it
_LABELS = ("label", "labels", "y", "class_labels")
_P = inspect.Parameter
_POSITIONAL = (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)
_NAMED = (*_POSITIONAL, _P.KEYWORD_ONLY)


@dataclass(frozen=True, kw_only=True)
class CallSignature:
    """How a module is called.

    Attributes:
        told: the method with its signature, for messages, like "Generator.sample(z, label)".
        method: "sample" or "forward".
        passed: what is passed, in order: the parameter's name, what goes there ("z", "label" or a name of
            `values_by_name`), and whether it may be passed by position.
    """

    told: str
    method: str
    passed: tuple[tuple[str, str, bool], ...]

    @classmethod
    def read(cls, module: nn.Module, *, labelled: bool, listed: Mapping[str, float | None] | None = None) -> Self:
        """Read a module's signature.

        Args:
            module: of one's own, or a program.
            labelled: whether the card has classes.
            listed: the card's parameters with their defaults; None checks nothing of them.

        Raises:
            ValueError: it cannot be called so; the message names the method, the parameter and the remedy.
        """
        method = "sample" if callable(getattr(module, "sample", None)) else "forward"
        if getattr(type(module), method, None) is nn.Module.forward:
            raise ValueError(f"{type(module).__name__} has neither sample nor forward; add sample(self, z)")
        parameters = _parameters_of(getattr(module, method))
        untyped = inspect.Signature([p.replace(annotation=_P.empty) for p in parameters])
        told = f"{_name_of(module)}.{method}{untyped}"
        named = [p for p in parameters if p.kind in _NAMED]
        roles = _find_roles(told, named, labelled)
        others = [p for p in named if p.name not in roles]
        if listed is not None:
            _check_others(told, others, listed)
        roles |= {p.name: p.name for p in others if p.name in (*_DRAWN, *_GIVEN)}
        passed = tuple((p.name, roles[p.name], p.kind in _POSITIONAL) for p in named if p.name in roles)
        return cls(told=told, method=method, passed=passed)

    def call(self, module: nn.Module, values: Mapping[str, object]) -> Any:
        """Call a module with those of the values that it takes; what is None is left to the module's own default."""
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


class CustomSampler(nn.Module):
    """A module of one's own, or a program, as a sampler."""

    def __init__(
        self, module: nn.Module, latent_shape: Sequence[int], *, labelled: bool, listed: Mapping[str, float | None]
    ) -> None:
        """Wrap a module.

        Args:
            module: with its weights.
            latent_shape: the card's; z is (B, *latent_shape).
            labelled: whether the card has classes.
            listed: the card's parameters with their defaults.

        Raises:
            ValueError: the module cannot be called so.
        """
        super().__init__()
        self.module = module
        self.latent_shape = tuple(latent_shape)
        self.defaults = {name: _as_drawn(name, value) for name, value in listed.items() if name in _DRAWN}
        self.calling = CallSignature.read(module, labelled=labelled, listed=listed)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Refuse: there is no architecture here to build.

        Raises:
            ValueError: always.
        """
        raise ValueError("a module of one's own is built from its own file; give family.source")

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one picture a row.

        Args:
            noise: B addresses; z is their stream LATENT.
            labels: (B,) int64, or None when unconditional.
            draw: truncation bounds z; the others are passed if the module takes them.
            deadline: checked once, and by the module if it takes `check_deadline`.

        Returns:
            (B, C, H, W) floating: whatever the module gives.

        Raises:
            TypeError: the module gave no tensor.
            DeadlinePassed: it has.
        """
        z = noise.normal(Stream.LATENT, self.latent_shape, truncation=draw.truncation)
        deadline.check()
        values = values_by_name(noise, draw, deadline, self.latent_shape)
        # Golden samples and profiles are drawn without parameters; a request's defaults have been filled in before.
        unset = {name: value for name, value in self.defaults.items() if values[name] is None}
        images = self.calling.call(self.module, {"z": z, "label": labels} | values | unset)
        if not isinstance(images, Tensor):
            raise TypeError(f"{self.calling.told} gave a {type(images).__name__}; return one tensor (B, C, H, W)")
        return images


def call_module(module: nn.Module, z: Tensor, labels: Tensor | None, values: Mapping[str, object] | None = None) -> Any:
    """Call a module of one's own as a worker does.

    Args:
        module: of one's own, or a program; in evaluation mode.
        z: (B, *latent_shape) floating.
        labels: (B,) int64, or None when unconditional.
        values: what else it may take by name, as `values_by_name` gives it.

    Returns:
        What the module returns, which should be (B, C, H, W) floating.
    """
    calling = CallSignature.read(module, labelled=labels is not None)
    return calling.call(module, {"z": z, "label": labels} | dict(values or {}))


def values_by_name(noise: Noise, draw: Draw, deadline: Deadline, latent_shape: Sequence[int]) -> dict[str, object]:
    """Name what a module may take beside z and the label.

    Returns:
        temperature, top_k, top_p, guidance_scale and steps, None being unset; `noise(step)`, which gives
        (B, *latent_shape), N(0, 1), other numbers at every step; and `check_deadline()`.
    """

    def draw_step(step: int) -> Tensor:
        return noise.normal(Stream.STEP, tuple(latent_shape), step=step)

    drawn: dict[str, object] = {name: getattr(draw, name) for name in _DRAWN}
    return drawn | {"noise": draw_step, "check_deadline": deadline.check}


def _as_drawn(name: str, value: float | None) -> float | None:
    """A card's default as a request's would be: top_k and steps are whole numbers."""
    return int(value) if value is not None and name in ("top_k", "steps") else value


def _find_roles(told: str, named: Sequence[inspect.Parameter], labelled: bool) -> dict[str, str]:
    """Find which parameter z goes to, and which the label: by name, or else by place."""
    told_label = next((p for p in named if p.name in _LABELS), None)
    free = [p for p in named if p is not told_label]
    if not free or free[0].kind not in _POSITIONAL:
        raise ValueError(f"{told} takes no z; make z its first parameter")
    second = next((p for p in free[1:] if p.kind in _POSITIONAL and p.name not in (*_DRAWN, *_GIVEN, _APPLIED)), None)
    label = told_label or second
    if labelled and label is None:
        remedy = "add a second parameter for it, or remove classes and prior from the card"
        raise ValueError(f"{told} takes no label, the card has classes; {remedy}")
    if not labelled and label is not None and label.default is _P.empty:
        remedy = "add classes and prior to the card, or give the parameter a default"
        raise ValueError(f"{told} takes {label.name} after z, the card has no classes; {remedy}")
    return {free[0].name: "z"} | ({label.name: "label"} if labelled and label else {})


def _check_others(told: str, others: Sequence[inspect.Parameter], listed: Mapping[str, float | None]) -> None:
    """Make sure that what else is required is there, and that what the card lists changes something."""
    for parameter in others:
        name, required = parameter.name, parameter.default is _P.empty
        if required and name == _APPLIED:
            remedy = "remove the parameter, or give it a default"
            raise ValueError(f"{told} needs truncation, but the z it is given is bounded already; {remedy}")
        if required and name not in (*_DRAWN, *_GIVEN):
            may = ", ".join((*_DRAWN, *_GIVEN))
            raise ValueError(f"{told} needs {name}, which no worker has; give it a default, or take one of {may}")
        if required and name in _DRAWN and listed.get(name) is None:
            remedy = f"add {name} with a default to the card's parameters, or give it a default in the signature"
            raise ValueError(f"{told} needs {name}, for which the card has no default; {remedy}")
    for name in listed:
        if name != _APPLIED and name not in [parameter.name for parameter in others]:
            raise ValueError(f"the card lists {name}, {told} does not take it; remove it from the card, or take it")


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


def _name_of(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))  # what TorchScript calls its class
