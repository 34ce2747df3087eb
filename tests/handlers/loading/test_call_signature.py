"""Call signatures: which value a custom module gets in which parameter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from handlers.models.custom import CallSignature, call_module

Z, LABELS = torch.ones(2, 3), torch.tensor([4, 5])


class Echo(nn.Module):
    """Gives back what each parameter got."""

    def take(self, *got: object) -> tuple[object, ...]:
        return got


class Forward(Echo):
    def forward(self, input: Tensor) -> object:
        return self.take(input)


class Both(Forward):
    def sample(self, z: Tensor, y: Tensor) -> object:
        return self.take("sample", z, y)


class LabelFirst(Echo):
    def forward(self, labels: Tensor, noise: Tensor) -> object:
        return self.take(noise, labels)


class OddNames(Echo):
    def forward(self, x: Tensor, cond: Tensor) -> object:
        return self.take(x, cond)


class PositionalOnly(Echo):
    def forward(self, z: Tensor, label: Tensor, /) -> object:
        return self.take(z, label)


class KeywordLabel(Echo):
    def sample(self, z: Tensor, temperature: float = 0.5, *, label: Tensor) -> object:
        return self.take(z, label, temperature)


class Optional(Echo):
    def forward(self, z: Tensor, label: Tensor | None = None, other: int = 7, **more: object) -> object:
        return self.take(z, label, other, more)


@pytest.mark.parametrize(
    ("module", "labels", "got"),
    [
        (Forward(), None, (Z,)),
        (Both(), LABELS, ("sample", Z, LABELS)),
        (LabelFirst(), LABELS, (Z, LABELS)),
        (OddNames(), LABELS, (Z, LABELS)),
        (PositionalOnly(), LABELS, (Z, LABELS)),
        (KeywordLabel(), LABELS, (Z, LABELS, 0.5)),
        (Optional(), LABELS, (Z, LABELS, 7, {})),
        (Optional(), None, (Z, None, 7, {})),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_z_and_label_are_passed_on(module: nn.Module, labels: Tensor | None, got: tuple[object, ...]) -> None:
    found = call_module(module, Z, labels)
    assert all(a is b or a == b for a, b in zip(found, got, strict=True))


def test_a_value_is_passed_to_a_module_that_takes_it() -> None:
    assert call_module(KeywordLabel(), Z, LABELS, {"temperature": 2.0, "steps": 9})[2] == 2.0


def test_an_unset_value_is_left_to_the_modules_default() -> None:
    assert call_module(KeywordLabel(), Z, LABELS, {"temperature": None})[2] == 0.5


def test_hooks_run_as_in_a_notebook() -> None:
    module, seen = Forward(), []
    module.register_forward_hook(lambda *_: seen.append(1))
    call_module(module, Z, None)
    assert seen == [1]


def test_truncation_belongs_to_z_and_may_be_listed_without_being_taken() -> None:
    assert CallSignature.read(Forward(), labelled=False, listed={"truncation": None}).text == "Forward.forward(input)"
