"""The family's side of cutting: what a state may be, and how it comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fount.address import Addresses
from handlers.execution.rows import SampleRows, concatenate_rows
from handlers.family import Deadline, DeadlinePassed, Draw, Noise, Sampler, WrongOutputError
from handlers.stepping import SteppedSampler
from handlers.worker.worker import Worker
from tests.handlers.stepping_toys import (
    SteppedToy,
    values_of,
)
from tests.handlers.toys import SIDE, ToySampler, request, sample_item, send


def _noise(count: int) -> Noise:
    return Noise(addresses=Addresses.of_range(1, 0, count), device=torch.device("cpu"))


def test_a_family_is_preemptible_if_it_has_the_methods() -> None:
    assert isinstance(SteppedToy(3), SteppedSampler)
    assert isinstance(ToySampler(3), Sampler)
    assert not isinstance(ToySampler(3), SteppedSampler)


def test_sampling_in_steps_returns_what_a_worker_returns(stepped: Worker) -> None:
    assert stepped.model.engine is not None
    module, size = stepped.model.engine.network.module, stepped.model.engine.profile.exec_batch_sizes[-1]
    assert isinstance(module, SteppedToy)
    with torch.inference_mode():
        images = module.sample(_noise(size), torch.zeros(size, dtype=torch.int64), Draw(), Deadline())
    assert [images.numpy().tobytes()] == values_of(send(stepped, request(sample_item(count=size))))


def test_sampling_in_steps_checks_the_deadline() -> None:
    with pytest.raises(DeadlinePassed):
        SteppedToy(3).sample(_noise(1), None, Draw(), Deadline(unix_s=0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_state_has_the_memory_layout_of_a_transferred_one(dtype: torch.dtype) -> None:
    seen: list[tuple[torch.dtype, tuple[int, ...]]] = []

    class Strided(SteppedToy):
        def advance(self, state: Any, *others: Any) -> Any:
            seen.append((state.dtype, state.stride()))
            return state.to(dtype, memory_format=torch.channels_last)

        def begin(self, noise: Noise, *others: Any) -> Any:  # one channel: its strides are free
            return torch.zeros(len(noise.addresses), 1, SIDE, SIDE, dtype=dtype).to(memory_format=torch.channels_last)

    with torch.inference_mode():
        Strided(3).sample(_noise(2), None, Draw(steps=3), Deadline())
    assert seen == [(torch.float32, (SIDE * SIDE, SIDE * SIDE, SIDE, 1))] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda state: state.double(), id="float64"),
        pytest.param(lambda state: state[:, :1], id="another-shape"),
        pytest.param(lambda state: state[:1], id="rows-missing"),
    ],
)
def test_a_state_that_cannot_be_transferred_is_an_error_of_the_family(wrong: Callable[[Any], Any]) -> None:
    class Wrong(SteppedToy):
        def advance(self, state: Any, *others: Any) -> Any:
            return wrong(super().advance(state, *others))

    with pytest.raises(WrongOutputError), torch.inference_mode():
        Wrong(3).sample(_noise(2), None, Draw(), Deadline())


def test_new_and_resumed_draws_are_not_joined() -> None:
    starts = SampleRows(addresses=Addresses.of_range(1, 0, 1), labels=None)
    resumes = SampleRows(addresses=Addresses.of_range(1, 0, 1), labels=None, states=np.zeros((1, 2), np.float32))
    with pytest.raises(TypeError, match="cannot share a batch"):
        concatenate_rows([starts, resumes])
