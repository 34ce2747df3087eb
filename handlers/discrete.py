"""Discrete draws by address: one uniform for each value, inverted through the distribution function.

Logits of one position and the parameters of a draw enter; the index of one value for each row leaves. Values are in
vocabulary order throughout: filters only set the probability of values to 0, so a filter that keeps every value gives
the bytes of no filter, and one flipped bit of a logit moves a draw to a neighbouring value, if at all.

Sources: Fan, Lewis, Dauphin, "Hierarchical neural story generation", 2018 (top-k); Holtzman et al., "The curious case
of neural text degeneration", 2020, section 3.1 (top-p).
"""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.family import Draw

__all__ = ["draw_values", "filter_log_probabilities"]

_LEAST_TEMPERATURE = 1e-100  # from here on, quotients of logits are finite


def draw_values(logits: Tensor, uniforms: Tensor, draw: Draw) -> Tensor:
    """Draw one value for each row.

    Args:
        logits: (B, V) floating, unnormalised log-probabilities; -inf for impossible values, not all of a row.
        uniforms: (B,) float64 in [0, 1).
        draw: temperature, top_k and top_p are read. A temperature of 0 takes the first of the likeliest values.

    Returns:
        (B,) int64, 0 to V - 1.
    """
    exact = logits.double()
    if draw.temperature == 0:
        return exact.argmax(dim=1)  # the first, on the CPU
    kept = filter_log_probabilities(exact, draw)
    cumulative = (kept - kept.max(dim=1, keepdim=True).values).exp().cumsum(dim=1)  # (B, V), not normalised
    targets = uniforms.to(cumulative.device)[:, None] * cumulative[:, -1:]
    indices = (cumulative <= targets).sum(dim=1)
    # a target that rounds up to the total belongs to the last value that is possible
    last = (cumulative < cumulative[:, -1:]).sum(dim=1)
    return torch.minimum(indices, last)


def filter_log_probabilities(logits: Tensor, draw: Draw) -> Tensor:
    """Apply temperature, then top_k, then top_p.

    Args:
        logits: (B, V) float64.
        draw: the parameters; None is off.

    Returns:
        (B, V) float64 logits, -inf for the values that were removed. Of equally likely values the first are kept.
    """
    if draw.temperature is not None:
        if draw.temperature < _LEAST_TEMPERATURE:  # quotients overflow; those of differences from the largest may
            logits = logits - logits.max(dim=1, keepdim=True).values
        logits = logits / draw.temperature
    size = logits.shape[1]
    if draw.top_k is not None and draw.top_k < size:
        order = logits.argsort(dim=1, descending=True, stable=True)
        logits = logits.scatter(1, order[:, draw.top_k :], -torch.inf)
    if draw.top_p is not None and draw.top_p < 1:
        order = logits.argsort(dim=1, descending=True, stable=True)
        masses = torch.softmax(logits, dim=1).gather(1, order)
        before = masses.cumsum(dim=1) - masses  # mass of the likelier values
        removed = before >= draw.top_p
        removed[:, 0] = False
        logits = logits.masked_fill(torch.zeros_like(removed).scatter(1, order, removed), -torch.inf)
    return logits
