"""The command `fount quality`: shipped models, a user's own, reports of evaluations, and its errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from handlers.cards.card import Card, Family, Latent, Weights, load_card, write_card
from handlers.cards.digests import model_digest
from handlers.cli.quality import quality
from tests.handlers.training_toys import MODEL_STORE

OWN = """
import torch

class Generator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shades = torch.nn.Parameter(torch.linspace(-0.5, 0.5, 10))

    def sample(self, z, label):
        return torch.tanh(z.reshape(-1, 1, 8, 8) + self.shades[label][:, None, None, None])
"""


def run(*arguments: object, store: Path = MODEL_STORE) -> Result:
    return CliRunner().invoke(quality, ["--model-store", str(store), *map(str, arguments)])


def custom_card() -> Card:
    card = load_card(MODEL_STORE / "digits-cvae")
    return dataclasses.replace(
        card,
        name="own",
        operations=("SAMPLE",),
        latent_dim=None,
        latent_spread=1.0,
        family=Family(name="module", source="generator.py", class_name="Generator"),
        latent=Latent(shape=(64,)),
        sample=dataclasses.replace(card.sample, value_range=(-1.0, 1.0)),
        recipe=None,
        quality=(),
        weights=Weights(file="weights.safetensors"),
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the shipped digits, and a user's generator that draws noise."""
    for name in ("digits-cvae", "digits-classifier"):
        shutil.copytree(MODEL_STORE / name, tmp_path / name)
    own = tmp_path / "own"
    own.mkdir()
    (own / "generator.py").write_text(OWN)
    save_file({"shades": torch.linspace(-0.5, 0.5, 10)}, own / "weights.safetensors")
    (own / "golden.safetensors").write_bytes(b"")  # as if it was checked; it is not read here
    write_card(custom_card(), own)
    return tmp_path


def test_a_model_is_measured_and_nothing_is_written(store: Path) -> None:
    before = (store / "digits-cvae" / "model.yaml").read_bytes()
    result = run("digits-cvae", "--quick", store=store)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("digits-cvae\n  metric ")
    assert "classification-accuracy-score" not in result.output
    assert (store / "digits-cvae" / "model.yaml").read_bytes() == before


def test_writing_keeps_the_value_that_quick_leaves_out(store: Path) -> None:
    def scores() -> list[float]:
        found = load_card(store / "digits-cvae").quality
        return [entry.value for entry in found if entry.metric == "classification-accuracy-score"]

    before = scores()
    assert run("digits-cvae", "--quick", "--write", store=store).exit_code == 0
    assert scores() == before != []


def test_measurements_are_printed_as_json(store: Path) -> None:
    (document,) = json.loads(run("digits-classifier", "--json", store=store).output)
    (entry,) = document["quality"]
    assert (document["model"], entry["metric"], entry["wanted"]) == ("digits-classifier", "test-accuracy", "≥ 0.98")
    assert 0.98 < entry["interval"][1] <= 1


def test_verbose_adds_the_method(store: Path) -> None:
    assert "likeliest class is right; Wilson" in run("digits-classifier", "--verbose", store=store).output


def test_the_table_measures_nothing() -> None:
    result = run("--table", "digits-classifier")
    assert result.output.startswith("| model | read as their label | trained on | diversity |\n")
    assert "\n| `digits-classifier` | real: 99.4 [98.0, 99.9] | | |\n" in result.output


# --- A user's own model -----------------------------------------------------------------------------------------------


def test_a_users_model_is_measured_with_the_named_data(store: Path) -> None:
    result = run(store / "own", "--data-set", "digits", "--quick", "--write", store=store)
    assert result.exit_code == 0, result.output
    measured = {entry.metric: entry.value for entry in load_card(store / "own").quality}
    assert measured["label-accuracy"] < 0.5
    assert measured["within-class-distance-ratio"] > 1
    assert measured["duplicate-share"] == 0


FAULTS = {
    "raises": ("raise KeyError('w')", "own failed with KeyError: 'w'"),
    "no channels": (
        "return torch.zeros(len(z), 8, 8)",
        "own returned pictures of shape (100, 8, 8), its card",
    ),
    "NaN": (
        "return torch.full((len(z), 1, 8, 8), torch.nan)",
        "own returned pictures that are not finite",
    ),
    "too bright": ("return torch.full((len(z), 1, 8, 8), 255.0)", "not within [-1, 1]"),
}


@pytest.mark.parametrize(("body", "message"), FAULTS.values(), ids=FAULTS)
def test_a_users_model_that_cannot_be_served_is_not_measured(body: str, message: str, store: Path) -> None:
    (store / "own" / "generator.py").write_text(OWN[: OWN.index("return torch.tanh")] + body)
    result = run("own", "--data-set", "digits", "--quick", store=store)
    assert result.exit_code == 1
    assert message in result.output
    assert f"; run: fount check {store / 'own'}" in result.output


def test_samples_are_drawn_with_the_defaults_of_the_card(store: Path) -> None:
    def spread() -> float:
        (document,) = json.loads(run("digits-cvae", "--quick", "--json", store=store).output)
        return next(float(q["value"]) for q in document["quality"] if q["metric"] == "within-class-distance-ratio")

    free, card = spread(), load_card(store / "digits-cvae")
    narrow = dataclasses.replace(card.parameters["truncation"], default=0.5)
    write_card(dataclasses.replace(card, parameters={"truncation": narrow}), store / "digits-cvae")
    assert spread() < 0.8 * free


def test_a_model_without_recipe_needs_named_data(store: Path) -> None:
    result = run("own", "--quick", store=store)
    assert result.exit_code == 1
    assert (
        "own: its card does not name the data it was trained on; name data of its kind with --data-set" in result.output
    )


def test_a_model_without_golden_samples_must_be_checked_first(store: Path) -> None:
    (store / "own" / "golden.safetensors").unlink()
    result = run("own", "--data-set", "digits", store=store)
    assert f"own has no golden samples yet; run: fount check {store / 'own'}" in result.output


def test_the_evaluator_may_be_another_classifier_of_the_store(store: Path) -> None:
    assert f"{store} has no strict to evaluate samples" in run("digits-cvae", "--judge", "strict", store=store).output
    shutil.copytree(store / "digits-classifier", store / "strict")
    result = run("digits-cvae", "--judge", "strict", "--quick", "--verbose", store=store)
    assert "that strict gives their label" in result.output


# --- What cannot be measured ------------------------------------------------------------------------------------------


def test_a_transformer_is_not_measured_nor_in_the_table() -> None:
    result = run("transforms", "--data-set", "mnist")
    assert (result.exit_code, "learned nothing that could be measured" in result.output) == (1, True)
    assert "transforms" not in run("--table").output


def test_a_missing_name_is_reported() -> None:
    assert "Name models to measure, or use --table" in run().output


def test_an_unknown_model_is_reported_with_the_known_ones(store: Path) -> None:
    assert "has no model 'cvae'; it has digits-classifier, digits-cvae, own" in run("cvae", store=store).output


@pytest.mark.parametrize("arguments", [("cvae",), ("--table",)])
def test_a_missing_store_is_reported_with_the_remedy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, store=tmp_path / "nowhere")
    assert result.exit_code == 1
    assert f"the folder {tmp_path}/nowhere does not exist; name the folder of your models" in result.output
    assert "with --model-store" in result.output


def test_missing_data_are_reported_with_their_source(tmp_path: Path) -> None:
    result = run("digits-vae", "--data-set", "mnist", "--data", tmp_path)
    assert "MNIST lacks train-images-idx3-ubyte" in result.output
    assert "any mirror of MNIST" in result.output


def test_data_of_another_kind_are_refused(store: Path) -> None:
    card = load_card(store / "digits-cvae")
    write_card(dataclasses.replace(card, classes=card.classes[:9], prior=(1 / 9,) * 9), store / "digits-cvae")
    result = run("digits-cvae", store=store)
    assert "digits-cvae cannot be measured on digits: it has 9 classes, the data have 10" in result.output


def test_other_rows_than_a_model_was_trained_on_are_refused(store: Path) -> None:
    card = load_card(store / "digits-cvae")
    assert card.recipe is not None
    other = dataclasses.replace(card.recipe, data_digest="sha256:" + 64 * "0")
    write_card(dataclasses.replace(card, recipe=other), store / "digits-cvae")
    result = run("digits-cvae", store=store)
    assert "was trained on digits of digest sha256:0000" in result.output
    assert "name the folder it was trained on with --data" in result.output


def test_a_missing_evaluator_is_reported_with_its_training_command(store: Path) -> None:
    shutil.rmtree(store / "digits-classifier")
    result = run("digits-cvae", "--quick", store=store)
    assert f"{store} has no digits-classifier to evaluate samples; name the folder that has it with" in result.output
    assert "--model-store, or run: fount train digits-classifier" in result.output


def test_damaged_weights_are_reported(store: Path) -> None:
    (store / "digits-cvae" / "weights.safetensors").write_bytes(b"none")
    result = run("digits-cvae", store=store)
    assert (result.exit_code, "weights.digest: weights.safetensors has sha256:" in result.output) == (1, True)


def test_an_unknown_family_is_reported_with_the_known_ones(store: Path) -> None:
    card = load_card(store / "digits-cvae")
    write_card(dataclasses.replace(card, family=Family(name="diffusion")), store / "digits-cvae")
    result = run("digits-cvae", store=store)
    assert "family 'diffusion' is unknown; known families: vae, conditional-vae" in result.output


def test_a_folder_that_cannot_be_written_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("handlers.recipes.quality.card_quality.atomic_write", refuse)
    result = run("digits-classifier", "--write", store=store)
    assert "digits-classifier cannot be written: Permission denied; make it writable, or leave out" in result.output


def report_of(folder: Path, file: Path, **changes: object) -> Path:
    """Write the part of a JSON report that is read."""
    card = load_card(folder)
    metric = {
        "name": "copy_rate",
        "value": 0.0111111,
        "interval": [0.009, 0.0130001],
        "null": {"mean": 0.01},
        "decides": True,
        "method": "share of samples",
    }
    pinned = {"name": card.name, "version": card.version, "digest": model_digest(card, folder)}
    envelope = {"model": pinned, "count": 1000, "seed": 1, "dataset": "digits", "training_rows": 1442,
                "held_out_rows": 355, "extractor": {"name": "digits-classifier"}}  # fmt: skip
    not_deciding = metric | {"name": "kid", "decides": False}
    unknown = metric | {"name": "recall", "value": None, "interval": None, "null": None}
    bound = metric | {"name": "effective_size_ratio", "value": None, "interval": [0.2, 1e15]}
    report = {"format": 1, "envelope": envelope, "metrics": [metric, not_deciding, unknown, bound]} | changes
    file.write_text(json.dumps(report))
    return file


def test_a_report_of_this_model_goes_into_its_card(store: Path, tmp_path: Path) -> None:
    file = report_of(store / "digits-cvae", tmp_path / "report.json")
    result = run("digits-cvae", "--report", file, "--write", store=store)
    assert result.exit_code == 0, result.output
    before = {each.metric: each for each in load_card(MODEL_STORE / "digits-cvae").quality}
    after = {each.metric: each for each in load_card(store / "digits-cvae").quality}
    added = after.pop("copy-rate")
    assert after == {metric: each for metric, each in before.items() if metric != "copy-rate"}
    assert (added.value, added.interval, added.real_value) == (0.0111, (0.009, 0.013), 0.01)
    assert added.method.startswith("evaluation: share of samples; 1000 samples of seed 1 against digits")


def test_a_report_of_another_model_is_refused_and_changes_nothing(store: Path, tmp_path: Path) -> None:
    file = report_of(store / "digits-classifier", tmp_path / "report.json")
    before = (store / "digits-cvae" / "model.yaml").read_bytes()
    result = run("digits-cvae", "--report", file, "--write", store=store)
    assert (result.exit_code, "evaluate this one" in result.output) == (1, True)
    assert (store / "digits-cvae" / "model.yaml").read_bytes() == before


def test_a_report_whose_metrics_are_not_measurable_is_refused(store: Path, tmp_path: Path) -> None:
    metrics = [{"name": "copy_rate", "value": None, "interval": None, "decides": True, "verdict": "not-measurable"}]
    file = report_of(store / "digits-cvae", tmp_path / "report.json", metrics=metrics)
    result = run("digits-cvae", "--report", file, "--write", store=store)
    assert (result.exit_code, "could not measure copy_rate" in result.output) == (1, True)


@pytest.mark.parametrize("changes", [{"format": 2}, {"envelope": None, "metrics": None, "format": None}], ids=str)
def test_a_report_of_another_format_is_refused(changes: dict[str, object], store: Path, tmp_path: Path) -> None:
    result = run(
        "digits-cvae", "--report", report_of(store / "digits-cvae", tmp_path / "r.json", **changes), store=store
    )
    assert (result.exit_code, "evaluate again" in result.output) == (1, True)


def test_another_json_document_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("[]")
    result = run("digits-cvae", "--report", tmp_path / "report.json", store=store)
    assert (result.exit_code, "is no report" in result.output) == (1, True)


@pytest.mark.parametrize("changes", [{"envelope": {}}, {"metrics": [{"interval": [0.1, 0.2]}]}], ids=["model", "name"])
def test_a_damaged_report_is_refused(changes: dict[str, object], store: Path, tmp_path: Path) -> None:
    file = report_of(store / "digits-cvae", tmp_path / "report.json", **changes)
    result = run("digits-cvae", "--report", file, store=store)
    assert (result.exit_code, "is a damaged report (KeyError: " in result.output) == (1, True)
