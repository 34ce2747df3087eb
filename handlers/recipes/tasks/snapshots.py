"""The state of a training run as named tensors: modules, optimisers and random numbers, put away and taken up.

Names are `<module>.<weight>`, `<optimizer>.<number of the parameter>.<moment>` and `random`. What is not a tensor, such
as a rate, follows from the step's number and is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["pack_state", "unpack_state"]

_RANDOM = "random"


def pack_state(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], generator: torch.Generator
) -> dict[str, Tensor]:
    """Copy everything to the CPU.

    Args:
        modules: by name; weights and buffers are taken.
        optimizers: by name, none of a module's.
        generator: on the CPU.

    Returns:
        Named tensors that share no memory with anything.
    """
    packed = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for number, moments in optimizer.state_dict()["state"].items():
            packed |= {f"{name}.{number}.{moment}": value for moment, value in moments.items()}
    packed[_RANDOM] = generator.get_state()
    return {name: value.detach().cpu().clone().contiguous() for name, value in packed.items()}


def unpack_state(
    state: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generator: torch.Generator,
) -> None:
    """Undo `pack_state`, into modules and optimisers made alike, on whatever device they are.

    Raises:
        KeyError: a name is missing.
        RuntimeError: names or shapes are those of another network.
    """
    for name, module in modules.items():
        module.load_state_dict(_below(state, name))
    for name, optimizer in optimizers.items():
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(state, name).items():
            number, _, moment = key.partition(".")
            moments.setdefault(int(number), {})[moment] = value.clone()
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(state[_RANDOM])


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What stands under a name, without it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
