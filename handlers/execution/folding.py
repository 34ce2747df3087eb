"""Fold batch normalisation into the layer before it, when a network is loaded.

In evaluation mode batch normalisation scales and shifts each channel by fixed numbers, which a linear layer or a
convolution can do itself: y = a (W x + b - mean) + beta is (a W) x + (a (b - mean) + beta), with
a = gamma / sqrt(variance + eps). A pass over the activations is saved. Rounding changes, so folding is part of the
numerics.

A norm is folded only where torch.fx traces that it reads the layer's result and nothing else does. Code that fx cannot
trace could hide another reader, so results before and after are compared.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
2018, section 3.2 (folding).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from handlers.execution.errors import is_device_lost, is_out_of_memory
from handlers.execution.pixels import Values

__all__ = ["fold_norms"]

_LOG = logging.getLogger(__name__)
_TOLERANCE = 1e-4  # of the largest value: far more than rounding, far less than a level of 255

_Layer = nn.Linear | _ConvNd


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A layer and the norm that alone reads its result.

    Attributes:
        layer: whose parameters change.
        norm: which is replaced by the identity.
        name: the norm's, in the network.
    """

    layer: _Layer
    norm: _BatchNorm
    name: str


def fold_norms(module: nn.Module, run: Callable[[], Sequence[Values]]) -> tuple[str, ...]:
    """Fold every batch normalisation that can be, in place; all or none.

    Args:
        module: in evaluation mode, in float32.
        run: runs probe rows through it.

    Returns:
        The names of the norms that were folded; empty when there are none, or when results would change by more than
        rounding, which is logged.
    """
    pairs = list(_find_pairs(module))
    unfolded = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm)]
    folded = tuple(pair.name for pair in pairs)
    if rest := [name for name in unfolded if name not in folded]:
        _LOG.info(
            "batch normalisation stays unfolded at %s: no layer is known whose only reader it is", ", ".join(rest)
        )
    if not pairs:
        return ()
    try:
        before = run()
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything; it does again where that is reported
        _raise_transient(error)
        return ()
    kept = [(pair.layer, pair.layer.weight, pair.layer.bias) for pair in pairs]
    for pair in pairs:
        _fold(pair)
        module.set_submodule(pair.name, nn.Identity().eval())
    reason = _compare(before, run)
    if not reason:
        return folded
    _LOG.warning("batch normalisation stays unfolded: %s", reason)
    for layer, weight, bias in kept:
        layer.weight, layer.bias = weight, bias
    for pair in pairs:
        module.set_submodule(pair.name, pair.norm)
    return ()


def _compare(before: Sequence[Values], run: Callable[[], Sequence[Values]]) -> str:
    """Run again and describe a difference from the results before that is not rounding; "" if there is none."""
    try:
        after = run()
    except Exception as error:  # noqa: BLE001 - a module may read the norm's attributes, which are gone
        _raise_transient(error)
        return f"the model fails without it ({error!r})"
    for first, second in zip(before, after, strict=True):
        scale = float(np.abs(first).max(initial=0.0))
        difference = float(np.abs(first.astype(np.float64) - second).max(initial=0.0))
        if not difference <= _TOLERANCE * scale:
            return f"results would change by up to {difference:.3g} of {scale:.3g}"
    return ""


def _raise_transient(error: Exception) -> None:
    """Raise what another try may not meet: else two workers of the same numerics would fold differently."""
    if is_out_of_memory(error) or is_device_lost(error):
        raise error


def _find_pairs(module: nn.Module) -> Iterator[_Pair]:
    """Find pairs that no traced graph contradicts. Modules that cannot be traced prove nothing."""
    names: dict[nn.Module, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        names.setdefault(part, []).append(name)
    if not any(isinstance(part, _BatchNorm) for part in names):
        return
    found: dict[nn.Module, set[nn.Module | None]] = {}
    for part in names:
        for norm, layer in _trace_norms(part):
            found.setdefault(norm, set()).add(layer)
    for norm, layers in found.items():
        layer = next(iter(layers))
        if len(layers) > 1 or layer is None or len(names[norm]) > 1 or len(names[layer]) > 1:
            continue
        if isinstance(norm, _BatchNorm) and isinstance(layer, _Layer) and _can_fold(layer, norm):
            yield _Pair(layer=layer, norm=norm, name=names[norm][0])


def _trace_norms(part: nn.Module) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    """Trace a module's forward; yield each norm it calls with the layer whose only reader it is, or None."""
    if isinstance(part, torch.jit.ScriptModule) or not any(isinstance(inner, _BatchNorm) for inner in part.modules()):
        return
    try:
        graph = fx.Tracer().trace(part)
    except Exception:  # noqa: BLE001 - whatever a user's forward raises when it is traced
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times: dict[nn.Module, int] = {}
    for node in calls:
        called = part.get_submodule(str(node.target))
        times[called] = times.get(called, 0) + 1
    for node in calls:
        norm = part.get_submodule(str(node.target))
        if not isinstance(norm, _BatchNorm):
            continue
        source = node.args[0] if node.args else None
        layer = None
        if isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1:
            layer = part.get_submodule(str(source.target))
        is_sole = times[norm] == 1 and layer is not None and times[layer] == 1
        yield norm, layer if is_sole else None


def _can_fold(layer: _Layer, norm: _BatchNorm) -> bool:
    """Return whether both are plain modules of torch, and the norm applies its stored statistics."""
    is_plain = all(type(part).__module__.startswith("torch.nn.modules.") for part in (layer, norm))
    has_hooks = any(part._forward_hooks or part._forward_pre_hooks for part in (layer, norm))
    # After a Linear, (B, C, L) would be normalised over its second axis, a layer writes its last: (B, C) alone is safe.
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    is_matching = norm.num_features == channels and (
        not isinstance(layer, nn.Linear) or isinstance(norm, nn.BatchNorm1d)
    )
    return is_plain and not has_hooks and is_matching and not norm.training and norm.running_var is not None


def _fold(pair: _Pair) -> None:
    """Scale and shift the layer's parameters, in float64, rounded once."""
    layer, norm = pair.layer, pair.norm
    mean, variance = (_double(statistic) for statistic in (norm.running_mean, norm.running_var))
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    scale = gamma / torch.sqrt(variance + norm.eps)
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.double()
    weight = layer.weight.double()
    if isinstance(layer, _ConvTransposeNd):
        # (in, out/groups, ...) -> (groups, in/groups, out/groups, ...): each group writes its own channels
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        shape = (layer.groups, 1, -1, *[1] * (weight.ndim - 2))
        weight = (grouped * scale.reshape(shape)).flatten(0, 1)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    layer.weight = _parameter(weight, layer.weight)
    layer.bias = _parameter((bias - mean) * scale + beta, layer.weight)


def _double(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.double()


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(like.dtype), requires_grad=False)
