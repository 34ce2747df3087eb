"""Model folders of recipes: written atomically, and loaded as evaluators."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from handlers.cards.card import Card, CardError, load_card, write_card
from handlers.models import load_family
from handlers.recipes import model_folder
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import TrainingData
from handlers.recipes.model_folder import load_evaluator, load_module, write_model
from tests.handlers.training_toys import MODEL_STORE

FILES = ["golden.safetensors", "model.yaml", "weights.safetensors"]
DIGITS = [recipe for recipe in RECIPES.values() if recipe.data == "digits"]


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = load_family(RECIPES[name].family, RECIPES[name].config)
    assert isinstance(module, nn.Module)
    return module.eval()


def write(name: str, folder: Path, digits: TrainingData, seed: int = 0) -> Card:
    return write_model(RECIPES[name], folder, digits, build(name, seed), (), steps=2, seed=9)


@pytest.mark.parametrize("name", [recipe.name for recipe in DIGITS])
def test_a_recipes_model_is_written_and_read_back(name: str, tmp_path: Path, digits: TrainingData) -> None:
    card = write(name, tmp_path, digits)
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    assert load_card(tmp_path) == card
    assert card.recipe is not None
    assert (card.recipe.seed, card.recipe.steps, card.recipe.data_digest) == (9, 2, digits.digest)
    assert card.data_licence.startswith("CC BY 4.0: Alpaydin")
    read, written = load_module(card, tmp_path).state_dict(), build(name).state_dict()
    assert all(torch.equal(read[key], written[key]) for key in written)


def test_the_files_may_be_read_by_another_user(tmp_path: Path, digits: TrainingData) -> None:
    write("digits-vae", tmp_path, digits)
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o644"}


def test_other_files_of_a_folder_stay(tmp_path: Path, digits: TrainingData) -> None:
    (tmp_path / "NOTES.txt").write_text("mine")
    write("digits-vae", tmp_path, digits)
    assert (tmp_path / "NOTES.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("written", range(4))
def test_an_interrupted_write_leaves_the_old_model_or_is_detected(
    written: int, tmp_path: Path, digits: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, left = write("digits-vae", tmp_path, digits), iter(range(written))

    def end_early(file: Path, content: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        file.write_bytes(content)

    monkeypatch.setattr(model_folder, "atomic_write", end_early)
    if written < 3:
        with pytest.raises(KeyboardInterrupt):
            write("digits-vae", tmp_path, digits, seed=1)
    else:
        write("digits-vae", tmp_path, digits, seed=1)
    if written in (1, 2):
        with pytest.raises(CardError, match=r"weights\.digest: weights\.safetensors has"):
            load_module(load_card(tmp_path), tmp_path)
    else:
        load_module(load_card(tmp_path), tmp_path)
        assert (load_card(tmp_path) == old) is (written == 0)
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES


def test_a_generator_is_no_evaluator(digits: TrainingData) -> None:
    with pytest.raises(CardError, match="vae labels nothing; name a classifier"):
        load_evaluator(MODEL_STORE / "digits-vae", digits)


def test_a_classifier_of_other_pictures_is_no_evaluator(digits: TrainingData) -> None:
    wrong = "reads 28×28×1 pixels and 10 classes, digits has 8×8×1 pixels and 10 classes; name a classifier of digits"
    with pytest.raises(CardError, match=wrong):
        load_evaluator(MODEL_STORE / "mnist-classifier", digits)


def test_a_classifier_of_another_value_range_is_no_evaluator(tmp_path: Path, digits: TrainingData) -> None:
    card = write("digits-classifier", tmp_path, digits)
    write_card(dataclasses.replace(card, sample=dataclasses.replace(card.sample, value_range=(-1.0, 1.0))), tmp_path)
    with pytest.raises(CardError, match=r"sample\.value_range: is not \[0\.0, 1\.0\], the range of the data"):
        load_evaluator(tmp_path, digits)


@pytest.mark.parametrize("name", sorted(card.parent.name for card in MODEL_STORE.glob("*/model.yaml")))
def test_shipped_golden_samples_are_64_rows_of_known_numerics_or_16_of_many_steps(name: str) -> None:
    card = load_card(MODEL_STORE / name)
    rows, size = 16 if card.draw_steps > 1 else 64, card.sample
    with safe_open(MODEL_STORE / name / "golden.safetensors", framework="np") as stream:
        name, shape = ("given", card.input_shape) if "given" in stream.keys() else ("images", size.shape)  # noqa: SIM118
        assert stream.get_tensor(name).shape == (rows, *shape)
        assert stream.metadata()["numerics"] != ""


# --- The catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_family(name: str) -> None:
    assert sum(parameter.numel() for parameter in build(name).parameters()) * 4 < 4_000_000  # bytes; weights are in git


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES.values() if recipe.evaluator])
def test_every_generator_of_images_is_evaluated_by_the_classifier_of_its_data(name: str) -> None:
    evaluator = RECIPES[str(RECIPES[name].evaluator)]
    assert (evaluator.data, evaluator.operations) == (RECIPES[name].data, ("CLASSIFY", "EMBED"))
