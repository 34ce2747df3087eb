"""Generators with a known fault, and their evaluation on the digits without a server."""

from __future__ import annotations

import pytest
import torch

from benchmarks.lessons.model_folders import BuiltGenerator, ascent_generator, codes_generators, table_generator
from benchmarks.lessons.module_evaluation import build_evidence, evaluate
from benchmarks.lessons.plain_autoencoder import train_plain
from handlers.cards.card import load_card
from handlers.family import Sampler
from handlers.models.classifier import ConvClassifier
from handlers.models.custom import CustomModel
from handlers.models.vae import Autoencoder
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import TrainingData
from handlers.recipes.model_folder import load_module
from service.evaluation.evidence import Evidence
from service.evaluation.results import Panel, Verdict
from service.evaluation.statistics.fid import Moments, frechet_distance
from service.evaluation.statistics.inception_score import estimate_inception_score
from service.evaluation.statistics.precision_recall import Manifold, compare
from tests.handlers.training_toys import MODEL_STORE

COUNT = 500


def silent(_: str) -> None:
    """Ignore progress messages."""


@pytest.fixture(scope="module")
def vae(digits: TrainingData, classifier: ConvClassifier) -> Evidence:
    folder = MODEL_STORE / "digits-cvae"
    module = load_module(load_card(folder), folder)
    assert isinstance(module, Sampler)
    return build_evidence(module, digits, classifier, count=COUNT, seed=1)


def evidence_of(built: BuiltGenerator, digits: TrainingData, classifier: ConvClassifier) -> Evidence:
    module, config = built
    sampler = CustomModel(module, (config.get("latent_dim", 1),), labelled=True, listed={})  # as a worker does
    return build_evidence(sampler, digits, classifier, count=COUNT, seed=1)


def plain(digits: TrainingData, steps: int) -> Autoencoder:
    return train_plain(RECIPES["digits-cvae"], digits, steps=steps, log=silent)


def fid(evidence: Evidence) -> float:
    return frechet_distance(Moments.of(evidence.samples.features), Moments.of(evidence.held_out.features))


def precision(evidence: Evidence) -> float:
    return compare(Manifold.of(evidence.samples.features), Manifold.of(evidence.held_out.features)).precision.value


def test_random_codes_through_a_plain_decoder_are_far_worse_than_a_vae(
    digits: TrainingData, classifier: ConvClassifier, vae: Evidence
) -> None:
    for built in codes_generators(plain(digits, 8), digits):  # codes placed as real ones, and from N(0, 1)
        found = evidence_of(built, digits, classifier)
        assert fid(found) > 10 * fid(vae)
        assert precision(found) < 0.5 * precision(vae)


def test_gradient_ascent_has_a_high_inception_score_and_is_unlike_real_rows(
    digits: TrainingData, classifier: ConvClassifier, vae: Evidence
) -> None:
    found = evidence_of(ascent_generator(classifier, 50, steps=60, log=silent), digits, classifier)
    rows = (found.samples, found.held_out, vae.samples)
    climbed, real, shipped = (estimate_inception_score(each.probabilities).value for each in rows)
    assert climbed > 1.1 * max(real, shipped)  # of 10 at most; above real rows
    assert fid(found) > 10 * fid(vae)
    assert precision(found) < 0.5 * precision(vae)


def test_a_table_of_training_pictures_is_like_real_rows_and_all_copies(
    digits: TrainingData, classifier: ConvClassifier, vae: Evidence
) -> None:
    found = evidence_of(table_generator(digits), digits, classifier)
    copies = evaluate(found, [Panel.MEMORISATION])
    assert fid(found) < fid(vae)
    assert precision(found) > precision(vae)
    assert copies.value("exact_copies") == 1.0
    assert copies.panels[Panel.MEMORISATION].verdict is Verdict.WORSE
    assert evaluate(vae, [Panel.MEMORISATION]).panels[Panel.MEMORISATION].verdict is not Verdict.WORSE


def test_the_served_decoder_is_the_trained_one(digits: TrainingData) -> None:
    trained = plain(digits, 2)
    _, (module, _) = codes_generators(trained, digits)
    z, labels = torch.linspace(-1, 1, 48).reshape(3, 16), torch.tensor([0, 4, 9])
    with torch.inference_mode():
        assert torch.equal(module.sample(z, labels), trained.decode(z, labels))


@pytest.mark.slow
def test_a_plain_decoder_that_reconstructs_well_still_samples_badly(
    digits: TrainingData, classifier: ConvClassifier, vae: Evidence
) -> None:
    trained = plain(digits, 1500)
    with torch.inference_mode():
        codes = trained.encode(digits.test.images, digits.test.labels)[0]
        again = classifier.embed(trained.decode(codes, digits.test.labels)).numpy()
    found = evidence_of(codes_generators(trained, digits)[0], digits, classifier)
    real = Moments.of(found.held_out.features)
    assert frechet_distance(Moments.of(again), real) < 0.1 * fid(found)
    assert fid(found) > 10 * fid(vae)
    assert evaluate(found, [Panel.REALISM]).panels[Panel.REALISM].verdict is Verdict.WORSE


@pytest.mark.slow
def test_panels_distinguish_gradient_ascent_from_a_table(digits: TrainingData, classifier: ConvClassifier) -> None:
    ascent = evaluate(evidence_of(ascent_generator(classifier, 200, steps=40, log=silent), digits, classifier))
    table = evaluate(evidence_of(table_generator(digits), digits, classifier))
    expected = {
        Panel.REALISM: (Verdict.WORSE, Verdict.LIKE_REAL),
        Panel.MEMORISATION: (Verdict.LIKE_REAL, Verdict.WORSE),
    }
    for panel, verdicts in expected.items():
        assert (ascent.panels[panel].verdict, table.panels[panel].verdict) == verdicts
    assert ascent.panels[Panel.DIVERSITY].verdict is Verdict.WORSE
