"""Discrete draws: laws that temperatures at the ends of floating point give."""

from __future__ import annotations

import pytest
import torch

from handlers.discrete import draw_values, filter_log_probabilities
from handlers.family import Draw

LOGITS = torch.tensor([[0.5, 2.0, 1.0], [-3.0, -2.0, -1.0], [-torch.inf, 0.0, -745.0]])
HALVES = torch.full((3,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-200, 1e-100, 1e-9])
@pytest.mark.parametrize("filters", [{}, {"top_k": 2}, {"top_p": 0.5}], ids=["all", "top-k", "top-p"])
def test_a_tiny_temperature_takes_the_likeliest_value(temperature: float, filters: dict[str, float]) -> None:
    draw = Draw(temperature=temperature, **filters)  # type: ignore[arg-type]
    assert draw_values(LOGITS, HALVES, draw).tolist() == [1, 2, 1]


def test_a_usual_temperature_divides_and_nothing_else() -> None:
    logits = LOGITS.double()
    assert torch.equal(filter_log_probabilities(logits, Draw(temperature=0.7)), logits / 0.7)
