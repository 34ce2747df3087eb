"""When a training run is stopped: rules over planted histories, one by one."""

from __future__ import annotations

import math

import pytest

from handlers.recipes.run.checkpoints import MOST_POINTS, History
from handlers.recipes.run.watch import Look, find_collapse, find_divergence, is_healthy

CLASSES = ("zero", "one")
STEPS = 20_000


def looks(*seen: tuple[tuple[float, ...], float | None]) -> list[Look]:
    """Looks after the warm-up and before half of the steps, 500 steps apart."""
    return [Look(step=3000 + 500 * n, accuracies=shares, ratio=ratio) for n, (shares, ratio) in enumerate(seen)]


def trouble(*seen: tuple[tuple[float, ...], float | None]) -> str | None:
    return find_collapse(looks(*seen), classes=CLASSES, steps=STEPS)


# --- Divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 2e9], ids=str)
def test_a_loss_that_is_no_number_is_named(loss: float) -> None:
    assert find_divergence({"generator": 0.1, "discriminator": loss}) == f"the discriminator loss is {loss:g}"


def test_the_one_loss_of_a_task_is_called_the_loss() -> None:
    assert find_divergence({"loss": math.nan}) == "the loss is nan"


def test_large_losses_are_fine() -> None:
    assert find_divergence({"loss": 1e8, "kl": -1e8}) is None


# --- Collapse ---------------------------------------------------------------------------------------------------------

GOOD = ((0.9, 0.9), 0.9)


def test_a_good_run_is_not_stopped() -> None:
    assert trouble(GOOD, GOOD, GOOD) is None


def test_a_class_lost_in_two_looks_is_named() -> None:
    lost = ((0.9, 0.04), 0.9)
    assert trouble(GOOD, lost, lost) == "a class was lost: one (label accuracy 0.04, after 0.90)"


def test_two_lost_classes_are_both_named() -> None:
    lost = ((0.01, 0.04), 0.9)
    assert "classes were lost: zero (label accuracy 0.01" in (trouble(GOOD, lost, lost) or "")


def test_a_class_lost_in_one_look_may_come_back() -> None:
    lost = ((0.9, 0.04), 0.9)
    assert trouble(GOOD, GOOD, lost) is None
    assert trouble(GOOD, lost, GOOD) is None


def test_a_class_never_learned_is_not_lost() -> None:
    early = ((0.9, 0.04), 0.9)
    assert trouble(early, early, early) is None


def test_classes_lost_in_turn_are_no_collapse() -> None:
    assert trouble(GOOD, ((0.0, 0.9), 0.9), ((0.9, 0.0), 0.9)) is None


def test_samples_half_as_far_apart_as_they_were_are_a_collapse() -> None:
    fallen = ((0.9, 0.9), 0.44)
    assert "has fallen from 0.90 to 0.44 of that between real" in (trouble(GOOD, fallen, fallen) or "")


def test_a_little_more_than_half_is_none() -> None:
    low = ((0.9, 0.9), 0.46)
    assert trouble(GOOD, low, low) is None


def test_noise_farther_apart_than_pictures_counts_as_1() -> None:
    later = ((0.9, 0.9), 0.55)
    assert trouble(((0.1, 0.1), 2.0), later, later) is None


def test_an_unconditional_run_is_watched_by_distances_alone() -> None:
    assert "has fallen from 0.90 to 0.30" in (trouble(((), 0.9), ((), 0.3), ((), 0.3)) or "")


def test_a_classifier_is_watched_by_its_classes_alone() -> None:
    assert trouble(((0.9, 0.9), None), ((0.9, 0.9), None)) is None


def test_samples_alike_from_the_beginning_are_waited_for_until_half_of_the_steps() -> None:
    alike = [Look(step=step, ratio=0.04) for step in (9000, 9500, 10_500, 11_000)]
    assert find_collapse(alike[:3], classes=(), steps=STEPS) is None
    assert "their distance is 0.04" in (find_collapse(alike, classes=(), steps=STEPS) or "")


@pytest.mark.parametrize(("steps", "step"), [(20_000, 1900), (4000, 900)], ids=["a tenth", "1000 steps"])
def test_nothing_is_stopped_while_it_warms_up(steps: int, step: int) -> None:
    early = [Look(step=step - 20 + n, ratio=ratio) for n, ratio in enumerate((0.9, 0.1, 0.1))]
    assert find_collapse(early, classes=(), steps=steps) is None


def test_one_sign_makes_a_run_unhealthy() -> None:
    assert not is_healthy(looks(GOOD, ((0.9, 0.0), 0.9)), steps=STEPS)
    assert is_healthy(looks(GOOD, GOOD), steps=STEPS)
    assert is_healthy([], steps=STEPS)


# --- History ----------------------------------------------------------------------------------------------------------


def test_losses_are_thinned_out_evenly() -> None:
    history = History()
    for step in range(1, 10 * MOST_POINTS + 1):
        history.add_losses(step, {"loss": float(step)})
    steps = [step for step, _ in history.losses]
    assert MOST_POINTS / 2 <= len(steps) <= MOST_POINTS
    assert steps == list(range(16, 10_001, 16))


def test_a_history_is_read_back_as_it_was() -> None:
    history = History(losses=[(2, {"loss": 0.5})], looks=looks(GOOD, ((), None)), stride=2)
    assert History.from_json(history.to_json()) == history
