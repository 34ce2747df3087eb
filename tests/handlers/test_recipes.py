"""Training recipes: the data, the loop, the measures, and the models that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import Tensor

from handlers.card import CardError, load_card
from handlers.models.classifier import ConvClassifier
from handlers.models.vae import ConditionalVae
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.classifiers import train_classifier
from handlers.recipes.digits import Digits, load_split_digits
from handlers.recipes.generators import train_vae
from handlers.recipes.measures import (
    bootstrap_distance_ratio,
    distance_ratio,
    draw_images,
    label_accuracy,
    wilson_interval,
)
from handlers.recipes.training import load_judge, train_model
from handlers.train_command import train
from handlers.weights import load_weights

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


def test_a_bootstrap_interval_holds_the_estimate() -> None:
    generator = torch.Generator().manual_seed(0)
    images, real = (torch.rand(50, 1, 8, 8, generator=generator) for _ in range(2))
    low, high = bootstrap_distance_ratio(images, real, generator)
    assert low < distance_ratio(images, real) < high


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


def test_the_shipped_classifier_is_right_on_the_test_rows(digits: Digits, judge: ConvClassifier) -> None:
    hits = label_accuracy(judge, digits.test.images, digits.test.labels)
    assert hits / len(digits.test.labels) >= 0.98


def test_the_shipped_generator_draws_what_its_label_says(judge: ConvClassifier) -> None:
    folder = MODEL_STORE / "digits-cvae"
    module = ConditionalVae.from_config(load_card(folder).family.config)
    load_weights(module, folder / "weights.safetensors")
    labels = torch.arange(2000) % 10
    images = draw_images(module, 1, 2000, labels)
    assert label_accuracy(judge, images, labels) / 2000 >= 0.98


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_golden_samples_are_64_rows_of_known_numerics(name: str) -> None:
    with safe_open(MODEL_STORE / name / "golden.safetensors", framework="np") as stream:
        assert stream.get_tensor("images").shape == (64, 8, 8, 1)
        assert stream.metadata()["numerics"] != ""
