"""Training recipes: the data, the loop, the measures, and the models that are shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import Tensor

from fount.address import Stream
from handlers.card import Card, CardError, Quality, load_card
from handlers.family import Deadline, Draw, Noise
from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.classifiers import train_classifier
from handlers.recipes.digits import Digits, load_split_digits
from handlers.recipes.generators import train_vae
from handlers.recipes.intervals import smallest_quantile_interval, smallest_share_interval, wilson_interval
from handlers.recipes.measures import distance_ratio, resampled_distance_ratios, resampled_smallest_share
from handlers.recipes.quality import measure_conditional, measure_unconditional
from handlers.recipes.training import load_judge, measure_model, train_model
from handlers.train_command import train

MODEL_STORE = Path(__file__).resolve().parents[2] / "model_store"
JUDGE = MODEL_STORE / "digits-classifier"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_split_digits()


@pytest.fixture(scope="module")
def judge() -> ConvClassifier:
    return load_judge(JUDGE)


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return module.state_dict()


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- Data -------------------------------------------------------------------------------------------------------------


def test_a_fifth_of_every_class_is_held_out(digits: Digits) -> None:
    assert (len(digits.train.labels), len(digits.test.labels)) == (1442, 355)
    assert torch.bincount(digits.test.labels).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]


def test_pixels_lie_between_0_and_1(digits: Digits) -> None:
    images = digits.train.images
    assert (tuple(images.shape[1:]), images.min().item(), images.max().item()) == ((1, 8, 8), 0.0, 1.0)


def test_the_data_have_the_digest_the_cards_name(digits: Digits) -> None:
    assert digits.digest == "sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


# --- Measures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "trials", "interval"),
    [(81, 263, (0.2553, 0.3662)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
    ids=["some", "none", "all"],
)
def test_wilson_intervals_are_those_of_the_literature(hits: int, trials: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(hits, trials) == pytest.approx(interval, abs=1e-4)


def test_the_distance_ratio_of_pictures_half_as_far_apart_is_a_half() -> None:
    real = torch.rand(20, 1, 8, 8)
    assert distance_ratio(0.5 * real, real) == pytest.approx(0.5)


def test_the_bootstrap_of_a_distance_ratio_lies_around_it() -> None:
    generator = torch.Generator().manual_seed(0)
    images, real = (torch.rand(50, 1, 8, 8, generator=generator) for _ in range(2))
    resampled = resampled_distance_ratios(images, real, 1000, generator)
    assert resampled.mean().item() == pytest.approx(distance_ratio(images, real), rel=2e-3)
    assert resampled.quantile(0.025) < distance_ratio(images, real) < resampled.quantile(0.975)


def test_the_rarest_of_equal_classes_is_rarer_in_a_draw() -> None:
    shares = resampled_smallest_share(torch.tensor([50, 50]), 100, 2000, torch.Generator().manual_seed(0))
    assert shares.mean().item() == pytest.approx(0.46, abs=2e-3)  # 0.5 - E|hits/100 - 0.5| = 0.5 - 0.0398


# --- Intervals of a smallest value ------------------------------------------------------------------------------------

RAREST = {
    "all equal": [0.1] * 10,
    "one rare": [0.05] + [0.95 / 9] * 9,
    "spread": [0.07, 0.08, 0.085, 0.09, 0.1, 0.105, 0.11, 0.115, 0.12, 0.125],
}


def draw_counts(shares: list[float], times: int = 1000) -> list[list[int]]:
    counts: list[list[int]] = np.random.default_rng(0).multinomial(10_000, shares, size=times).tolist()
    return counts


def test_the_bounds_of_the_smallest_share_are_wilsons_at_two_tails() -> None:
    assert smallest_share_interval([10, 90, 900]) == pytest.approx((0.005441, 0.020805), abs=1e-6)  # z 1.960, 2.394


@pytest.mark.parametrize("shares", RAREST.values(), ids=RAREST)
def test_the_interval_of_the_smallest_share_holds_it_19_times_in_20(shares: list[float]) -> None:
    intervals = [smallest_share_interval(counts) for counts in draw_counts(shares)]
    assert sum(low <= min(shares) <= high for low, high in intervals) >= 950


def test_an_interval_of_the_smallest_class_alone_would_miss_one_time_in_four() -> None:
    intervals = [wilson_interval(min(counts), 10_000) for counts in draw_counts(RAREST["all equal"])]
    assert sum(low <= 0.1 <= high for low, high in intervals) < 800


@pytest.mark.parametrize("ratios", [[0.9] * 5, [0.7, 0.9, 0.9, 0.9, 0.9]], ids=["all equal", "one small"])
def test_the_interval_of_the_smallest_ratio_holds_it_9_times_in_10_at_least(ratios: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        pairs = [torch.randn(2, 40, 4, generator=generator) for _ in ratios]
        resampled = [
            resampled_distance_ratios(k * above, below, 500, generator)
            for k, (above, below) in zip(ratios, pairs, strict=True)
        ]
        low, high = smallest_quantile_interval(torch.stack(resampled))
        held += low <= min(ratios) <= high
    assert held >= 184  # 95 % of 200 is 190; its binomial error is 3


# --- Real data and samples are measured alike -------------------------------------------------------------------------


class Copyist:
    """A generator that has learned nothing but the real rows."""

    def __init__(self, digits: Digits) -> None:
        self.digits = digits
        self.everything = torch.cat([digits.train.images, digits.test.images])

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        if labels is None:
            uniforms = noise.addresses.uniforms(Stream.LABEL, 1)[:, 0]
            return self.everything[(uniforms * len(self.everything)).astype(np.int64)]
        rows = [self.digits.train.of_class(k) for k in range(10)]
        turns = (noise.addresses.indices // 10).tolist()
        return torch.stack([rows[k][turn % len(rows[k])] for k, turn in zip(labels.tolist(), turns, strict=True)])


def test_training_rows_lie_as_far_apart_as_the_real_value_says(digits: Digits, judge: ConvClassifier) -> None:
    _, spread = measure_conditional(digits, Copyist(digits), judge)
    assert spread.value == spread.real_value


def test_real_rows_drawn_freely_have_the_rarest_class_of_the_real_value(digits: Digits, judge: ConvClassifier) -> None:
    _, rarest = measure_unconditional(digits, Copyist(digits), judge)
    assert rarest.value == pytest.approx(rarest.real_value, abs=0.005)  # one draw of 10 000 has an error of 0.002


# --- Training ---------------------------------------------------------------------------------------------------------


def train_some(digits: Digits, judge: ConvClassifier, seed: int, steps: int = 20) -> dict[str, Tensor]:
    return weights_of(train_vae(digits, judge, conditional=True, steps=steps, seed=seed, device=CPU))


def test_the_same_seed_trains_the_same_generator(digits: Digits, judge: ConvClassifier) -> None:
    assert are_equal(train_some(digits, judge, 5), train_some(digits, judge, 5))


def test_another_seed_trains_another_generator(digits: Digits, judge: ConvClassifier) -> None:
    assert not are_equal(train_some(digits, judge, 5), train_some(digits, judge, 6))


def test_the_same_seed_trains_the_same_classifier(digits: Digits) -> None:
    one, other = (train_classifier(digits, digits.train, steps=20, seed=5, device=CPU) for _ in range(2))
    assert are_equal(weights_of(one), weights_of(other))


def test_training_leaves_torch_as_it_was(digits: Digits) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    train_classifier(digits, digits.train, steps=1, seed=5, device=CPU)
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    assert after == before


def test_a_recipe_writes_a_whole_model_folder(tmp_path: Path) -> None:
    recipe = RECIPES["digits-vae"]
    card = train_model(recipe, tmp_path, judge_folder=JUDGE, steps=2, seed=9, device=CPU)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "golden.safetensors",
        "model.yaml",
        "weights.safetensors",
    ]
    assert load_card(tmp_path) == card
    assert (card.recipe.seed, card.recipe.steps) == (9, 2)


def test_a_generator_is_not_trained_without_its_judge(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"cannot be read: No such file"):
        train_model(RECIPES["digits-vae"], tmp_path, judge_folder=tmp_path, steps=1, seed=0, device=CPU)


# --- The command ------------------------------------------------------------------------------------------------------


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    result = CliRunner().invoke(train, ["digits-gan"])
    assert result.exit_code == 2
    assert "'digits-gan' is unknown; known recipes: digits-cvae, digits-vae, digits-classifier" in result.output


def test_training_without_the_classifier_says_how_to_get_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["digits-vae", "--model-store", str(tmp_path)])
    assert result.exit_code == 1
    assert "Train the classifier first: fount train digits-classifier" in result.output


def test_an_absent_device_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["digits-vae", "--out", str(tmp_path), "--device", "nowhere"])
    assert result.exit_code == 2
    assert "'nowhere' is not there" in result.output


def test_the_command_trains_a_model(tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["digits-classifier", "--out", str(tmp_path), "--steps", "3", "--seed", "4"])
    assert result.exit_code == 0
    assert f"{tmp_path}: trained\n  test-accuracy " in result.output
    assert (load_card(tmp_path).recipe.steps, load_card(tmp_path).recipe.seed) == (3, 4)


# --- The shipped models -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=RECIPES)
def shipped(request: pytest.FixtureRequest) -> tuple[Card, dict[str, Quality]]:
    """A shipped card, and what its weights are found to do today, without the metric that trains classifiers."""
    folder = MODEL_STORE / request.param
    return load_card(folder), {q.metric: q for q in measure_model(folder, JUDGE, quick=True)}


def test_a_shipped_card_says_what_its_weights_do(shipped: tuple[Card, dict[str, Quality]]) -> None:
    card, measured = shipped
    said = {q.metric: q for q in card.quality if q.metric in measured}
    assert said.keys() == measured.keys()
    for metric, found in measured.items():  # another processor may judge a picture in 10 000 otherwise
        assert said[metric].value == pytest.approx(found.value, abs=2e-4)
        assert said[metric].interval == pytest.approx(found.interval, abs=1e-3)
        assert said[metric].real_value == pytest.approx(found.real_value, abs=2e-4)


def test_the_value_of_training_on_samples_fits_its_interval() -> None:
    card = load_card(MODEL_STORE / "digits-cvae")
    score = next(q for q in card.quality if q.metric == "classification-accuracy-score")
    assert score.interval == pytest.approx(wilson_interval(score.value * 355, 355), abs=2e-4)


def test_every_shipped_value_lies_in_its_interval(shipped: tuple[Card, dict[str, Quality]]) -> None:
    assert all(q.interval[0] <= q.value <= q.interval[1] for q in shipped[0].quality)


FLOORS = {
    "digits-classifier": {"test-accuracy": 0.98},
    "digits-cvae": {"label-accuracy": 0.98, "within-class-distance-ratio": 0.75},
    "digits-vae": {"clear-digit-share": 0.75, "rarest-class-share": 0.05},
}


def test_a_shipped_model_is_as_good_as_a_user_may_expect(shipped: tuple[Card, dict[str, Quality]]) -> None:
    card, measured = shipped
    assert {metric: q.value >= FLOORS[card.name][metric] for metric, q in measured.items()} == dict.fromkeys(
        FLOORS[card.name], True
    )


def test_a_generator_is_no_judge() -> None:
    with pytest.raises(CardError, match="vae labels nothing; name a classifier"):
        load_judge(MODEL_STORE / "digits-vae")


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_golden_samples_are_64_rows_of_known_numerics(name: str) -> None:
    with safe_open(MODEL_STORE / name / "golden.safetensors", framework="np") as stream:
        assert stream.get_tensor("images").shape == (64, 8, 8, 1)
        assert stream.metadata()["numerics"] != ""
