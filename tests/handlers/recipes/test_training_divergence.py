"""Detection of divergence and collapse on constructed histories, and the history of a run."""

from __future__ import annotations

import math

import pytest

from handlers.recipes.run.divergence import find_collapse, find_divergence, is_healthy
from handlers.recipes.run.history import MAX_LOSSES, History, Snapshot

CLASSES = ("zero", "one")
STEPS = 20_000


def snapshots(*values: tuple[tuple[float, ...], float | None]) -> list[Snapshot]:
    """Snapshots after the warm-up and before half of the steps, 500 steps apart."""
    return [Snapshot(step=3000 + 500 * n, accuracies=shares, ratio=ratio) for n, (shares, ratio) in enumerate(values)]


def collapse(*values: tuple[tuple[float, ...], float | None]) -> str | None:
    return find_collapse(snapshots(*values), classes=CLASSES, steps=STEPS)


# --- Divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 2e9], ids=str)
def test_a_loss_that_is_not_finite_is_named(loss: float) -> None:
    assert find_divergence({"generator": 0.1, "discriminator": loss}) == f"the discriminator loss is {loss:g}"


def test_the_single_loss_of_a_task_has_no_name() -> None:
    assert find_divergence({"loss": math.nan}) == "the loss is nan"


def test_large_losses_are_no_divergence() -> None:
    assert find_divergence({"loss": 1e8, "kl": -1e8}) is None


# --- Collapse ---------------------------------------------------------------------------------------------------------

GOOD = ((0.9, 0.9), 0.9)


def test_a_good_run_is_no_collapse() -> None:
    assert collapse(GOOD, GOOD, GOOD) is None


def test_a_class_lost_in_two_snapshots_is_named() -> None:
    lost = ((0.9, 0.04), 0.9)
    assert collapse(GOOD, lost, lost) == "a class was lost: one (label accuracy 0.04, after 0.90)"


def test_two_lost_classes_are_both_named() -> None:
    lost = ((0.01, 0.04), 0.9)
    assert "classes were lost: zero (label accuracy 0.01" in (collapse(GOOD, lost, lost) or "")


def test_a_class_lost_in_one_snapshot_is_no_collapse() -> None:
    lost = ((0.9, 0.04), 0.9)
    assert collapse(GOOD, GOOD, lost) is None
    assert collapse(GOOD, lost, GOOD) is None


def test_a_class_never_learned_is_not_lost() -> None:
    early = ((0.9, 0.04), 0.9)
    assert collapse(early, early, early) is None


def test_different_classes_lost_in_two_snapshots_are_no_collapse() -> None:
    assert collapse(GOOD, ((0.0, 0.9), 0.9), ((0.9, 0.0), 0.9)) is None


def test_a_distance_below_half_of_the_best_is_a_collapse() -> None:
    fallen = ((0.9, 0.9), 0.44)
    assert "has fallen from 0.90 to 0.44 of that between real" in (collapse(GOOD, fallen, fallen) or "")


def test_a_distance_above_half_of_the_best_is_no_collapse() -> None:
    low = ((0.9, 0.9), 0.46)
    assert collapse(GOOD, low, low) is None


def test_a_best_distance_above_1_counts_as_1() -> None:
    later = ((0.9, 0.9), 0.55)
    assert collapse(((0.1, 0.1), 2.0), later, later) is None


def test_an_unconditional_run_is_checked_by_distances() -> None:
    assert "has fallen from 0.90 to 0.30" in (collapse(((), 0.9), ((), 0.3), ((), 0.3)) or "")


def test_a_classifier_is_checked_by_its_classes() -> None:
    assert collapse(((0.9, 0.9), None), ((0.9, 0.9), None)) is None


def test_samples_may_be_alike_in_the_first_half_of_the_steps() -> None:
    alike = [Snapshot(step=step, ratio=0.04) for step in (9000, 9500, 10_500, 11_000)]
    assert find_collapse(alike[:3], classes=(), steps=STEPS) is None
    assert "their distance is 0.04" in (find_collapse(alike, classes=(), steps=STEPS) or "")


@pytest.mark.parametrize(("steps", "step"), [(20_000, 1900), (4000, 900)], ids=["a tenth", "1000 steps"])
def test_no_collapse_is_reported_during_the_warm_up(steps: int, step: int) -> None:
    early = [Snapshot(step=step - 20 + n, ratio=ratio) for n, ratio in enumerate((0.9, 0.1, 0.1))]
    assert find_collapse(early, classes=(), steps=steps) is None


def test_one_symptom_makes_a_run_unhealthy() -> None:
    assert not is_healthy(snapshots(GOOD, ((0.9, 0.0), 0.9)), steps=STEPS)
    assert is_healthy(snapshots(GOOD, GOOD), steps=STEPS)
    assert is_healthy([], steps=STEPS)


# --- History ----------------------------------------------------------------------------------------------------------


def test_losses_are_thinned_evenly() -> None:
    history = History()
    for step in range(1, 10 * MAX_LOSSES + 1):
        history.add_losses(step, {"loss": float(step)})
    steps = [step for step, _ in history.losses]
    assert MAX_LOSSES / 2 <= len(steps) <= MAX_LOSSES
    assert steps == list(range(16, 10_001, 16))


def test_a_history_is_read_as_written() -> None:
    history = History(losses=[(2, {"loss": 0.5})], snapshots=snapshots(GOOD, ((), None)), stride=2)
    assert History.from_json(history.to_json()) == history
