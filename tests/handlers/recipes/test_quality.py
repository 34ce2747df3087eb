"""Quality: real rows and samples are measured alike, and only the quality section of a card is changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.cards.card import CardError, Quality, load_card
from handlers.family import Deadline, Draw, Noise
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import TrainingData
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.card_quality import merge_quality, write_quality
from handlers.recipes.quality.metrics import measure, measure_training_value
from handlers.recipes.quality.table import meets_threshold, threshold_text, to_markdown, to_text
from tests.handlers.training_toys import MODEL_STORE

# --- Real data and samples are measured alike -------------------------------------------------------------------------


class Copyist(nn.Module):
    """A generator that returns real rows, scaled to a value range."""

    def __init__(self, digits: TrainingData, value_range: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__()
        self.digits, self.value_range = digits, value_range
        self.everything = torch.cat([digits.train.images, digits.test.images])

    @classmethod
    def from_config(cls, config: object) -> Copyist:
        raise NotImplementedError

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        low, high = self.value_range
        return low + (high - low) * self.choose(noise, labels)

    def choose(self, noise: Noise, labels: Tensor | None) -> Tensor:
        if labels is None:
            uniforms = noise.addresses.uniforms(Stream.LABEL, 1)[:, 0]
            return self.everything[(uniforms * len(self.everything)).astype(np.int64)]
        rows = [self.digits.train.of_class(k) for k in range(10)]
        turns = (noise.addresses.indices // 10).tolist()
        return torch.stack([rows[k][turn % len(rows[k])] for k, turn in zip(labels.tolist(), turns, strict=True)])


def measure_quickly(
    digits: TrainingData, module: Copyist, evaluator: Evaluator, *, conditional: bool = True
) -> dict[str, Quality]:
    value_range = module.value_range
    found = measure(
        digits,
        module,
        evaluator,
        operations=("SAMPLE",),
        conditional=conditional,
        value_range=value_range,
        seed=0,
        quick=True,
    )
    return {entry.metric: entry for entry in found}


@pytest.fixture(scope="module")
def copied(digits: TrainingData, evaluator: Evaluator) -> dict[str, Quality]:
    return measure_quickly(digits, Copyist(digits), evaluator)


def test_training_rows_have_the_distances_of_the_real_value(copied: dict[str, Quality]) -> None:
    spread = copied["within-class-distance-ratio"]
    assert spread.value == pytest.approx(spread.real_value, abs=1e-3)  # a 16th is not quite one of 255 levels


def test_training_rows_are_found_to_be_copies_of_each_other(copied: dict[str, Quality]) -> None:
    assert (copied["duplicate-share"].value, copied["training-copy-share"].value) == (1.0, 1.0)


def test_real_rows_contain_no_copies(copied: dict[str, Quality]) -> None:
    assert (copied["duplicate-share"].real_value, copied["training-copy-share"].real_value) == (0.0, 0.0)


def test_a_model_of_another_value_range_is_measured_alike(
    digits: TrainingData, evaluator: Evaluator, copied: dict[str, Quality]
) -> None:
    assert measure_quickly(digits, Copyist(digits, (-1.0, 1.0)), evaluator) == copied


def test_random_real_rows_have_the_rarest_class_of_the_real_value(digits: TrainingData, evaluator: Evaluator) -> None:
    rarest = measure_quickly(digits, Copyist(digits), evaluator, conditional=False)["rarest-class-share"]
    assert rarest.value == pytest.approx(rarest.real_value, abs=0.005)  # one draw of 10 000 has an error of 0.002


@pytest.mark.slow
def test_training_on_copies_gives_the_accuracy_of_real_rows(
    digits: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES["digits-classifier"]
    short = dataclasses.replace(recipe, steps=60, config={**recipe.config, "features": 8})
    monkeypatch.setattr("handlers.recipes.quality.metrics.classifier_of", {"digits": short}.get)
    entry = measure_training_value(digits, Copyist(digits), value_range=(0.0, 1.0), seed=0)
    assert entry.real_value is not None
    assert entry.value == pytest.approx(entry.real_value, abs=0.02)
    assert entry.value > 0.8
    assert "trained 60 steps on 1442 samples" in entry.method


def test_a_measurement_does_not_depend_on_the_one_before(
    digits: TrainingData, evaluator: Evaluator, copied: dict[str, Quality]
) -> None:
    torch.manual_seed(5)
    assert measure_quickly(digits, Copyist(digits), evaluator) == copied


# --- Into the card ----------------------------------------------------------------------------------------------------

ENTRY = Quality(metric="label-accuracy", value=0.5, interval=(0.4, 0.6), real_value=0.9, method="Counted: all.")
CARD = (MODEL_STORE / "digits-cvae" / "model.yaml").read_text("utf-8")
BEFORE, _, REST = CARD.partition("quality:\n")
AFTER = REST[REST.index("data_licence:") :]


@pytest.mark.parametrize(
    "card",
    [
        CARD,
        BEFORE + "quality: []\n" + AFTER,
        BEFORE + AFTER,
        BEFORE.replace("name: digits", "# Mine.\nname: digits") + "quality:   # so far\n" + REST,
        BEFORE + "quality:\n" + REST.replace("data_licence:", "# Whose it is.\n\ndata_licence:"),
        BEFORE + AFTER + "quality: []",
    ],
    ids=["as written", "empty", "absent", "comments", "comment after", "last, without a line end"],
)
def test_only_the_quality_of_a_card_is_replaced(tmp_path: Path, card: str) -> None:
    (tmp_path / "model.yaml").write_text(card, "utf-8")
    before = load_card(tmp_path)
    write_quality(tmp_path, (ENTRY,))
    assert load_card(tmp_path) == dataclasses.replace(before, quality=(ENTRY,))
    text = (tmp_path / "model.yaml").read_text("utf-8")
    assert [line for line in card.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]


def test_unchanged_quality_leaves_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(CARD, "utf-8")
    write_quality(tmp_path, load_card(tmp_path).quality)
    assert (tmp_path / "model.yaml").read_text("utf-8") == CARD


def test_a_section_that_cannot_be_separated_is_not_changed(tmp_path: Path) -> None:
    strange = BEFORE + "quality: [\n]\n" + AFTER
    (tmp_path / "model.yaml").write_text(strange, "utf-8")
    with pytest.raises(CardError, match=r"quality: cannot be separated from other sections; write it as a block"):
        write_quality(tmp_path, (ENTRY,))
    assert (tmp_path / "model.yaml").read_text("utf-8") == strange


def test_entries_that_were_not_measured_stay_in_place() -> None:
    old = [dataclasses.replace(ENTRY, metric=metric) for metric in ("mine", "label-accuracy", "slow")]
    new = [dataclasses.replace(ENTRY, metric=metric, value=0.55) for metric in ("label-accuracy", "new")]
    merged = merge_quality(tuple(old), tuple(new))
    assert [(entry.metric, entry.value) for entry in merged] == [
        ("mine", 0.5), ("label-accuracy", 0.55), ("slow", 0.5), ("new", 0.55),
    ]  # fmt: skip


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_the_table_of_the_readme_has_a_row_a_model() -> None:
    spread = dataclasses.replace(ENTRY, metric="within-class-distance-ratio")
    card = dataclasses.replace(load_card(MODEL_STORE / "digits-cvae"), quality=(ENTRY, spread))
    assert to_markdown([card]).splitlines()[2:] == [
        "| `digits-cvae` | 50.0 [40.0, 60.0] / 90.0 | | 0.50 [0.40, 0.60] / 0.90 |"
    ]


def test_the_table_marks_cells_of_another_metric() -> None:
    other = [dataclasses.replace(ENTRY, metric=metric) for metric in ("clear-digit-share", "rarest-class-share")]
    card = dataclasses.replace(load_card(MODEL_STORE / "digits-vae"), quality=tuple(other))
    cells = "clear: 50.0 [40.0, 60.0] / 90.0 | | rarest class: 50.0 [40.0, 60.0] / 90.0"
    assert to_markdown([card]).splitlines()[2:] == [f"| `digits-vae` | {cells} |"]


def test_models_are_in_the_order_of_the_catalogue_and_others_last() -> None:
    card = dataclasses.replace(load_card(MODEL_STORE / "digits-cvae"), quality=())
    names = ["zebra", "digits-classifier", "ant", "digits-cvae"]
    table = to_markdown([dataclasses.replace(card, name=name) for name in names])
    found = [line.split("`")[1] for line in table.splitlines()[2:]]
    assert found == ["digits-cvae", "digits-classifier", "ant", "zebra"]


def test_a_value_below_its_threshold_is_marked() -> None:
    card = load_card(MODEL_STORE / "digits-cvae")
    lines = to_text(card, [ENTRY], verbose=True).splitlines()
    assert lines[2].split() == ["label-accuracy", "0.5000", "[0.4000,", "0.6000]", "0.9000", "≥", "0.95", "(missed)"]
    assert lines[3] == "      Counted: all."


def test_one_copy_in_ten_thousand_is_too_many() -> None:
    assert threshold_text("mnist-cgan", "duplicate-share") == "0"
    assert not meets_threshold("mnist-cgan", "duplicate-share", 0.0001)


def test_few_samples_of_a_plane_may_be_copies_of_each_other() -> None:
    assert threshold_text("mnist-ae2", "duplicate-share") == "≤ 0.001"
    assert meets_threshold("mnist-ae2", "duplicate-share", 0.001)
    assert not meets_threshold("mnist-ae2", "duplicate-share", 0.002)


def test_a_model_without_recipe_has_no_thresholds() -> None:
    assert (threshold_text("mine", "label-accuracy"), meets_threshold("mine", "duplicate-share", 1.0)) == ("", True)
