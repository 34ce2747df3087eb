"""Three generators that are wrong in a known way, and what evaluations say of each; on the digits, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.lessons.building import Made, climbed_generator, codes_generators, table_generator
from benchmarks.lessons.judging import as_sampler, gather, judge
from benchmarks.lessons.plain import train_plain
from handlers.cards.card import load_card
from handlers.family import Sampler
from handlers.models.classifier import ConvClassifier
from handlers.models.vae import Autoencoder
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import TrainingData, load_data
from handlers.recipes.model_folder import load_evaluator, load_module
from service.evaluation.evidence import Evidence
from service.evaluation.results import Panel, Verdict
from service.evaluation.statistics.fid import Moments, frechet_distance
from service.evaluation.statistics.inception_score import estimate_inception_score
from service.evaluation.statistics.precision_recall import Manifold, compare

STORE = Path(__file__).resolve().parents[3] / "model_store"
COUNT = 500


def silent(_: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def digits() -> TrainingData:
    return load_data("digits")


@pytest.fixture(scope="module")
def classifier(digits: TrainingData) -> ConvClassifier:
    return load_evaluator(STORE / "digits-classifier", digits)


@pytest.fixture(scope="module")
def vae(digits: TrainingData, classifier: ConvClassifier) -> Evidence:
    folder = STORE / "digits-cvae"
    module = load_module(load_card(folder), folder)
    assert isinstance(module, Sampler)
    return gather(module, digits, classifier, count=COUNT, seed=1)


def seen(made: Made, digits: TrainingData, classifier: ConvClassifier) -> Evidence:
    module, config = made
    return gather(as_sampler(module, config.get("latent_dim", 1)), digits, classifier, count=COUNT, seed=1)


def plain(digits: TrainingData, steps: int) -> Autoencoder:
    return train_plain(RECIPES["digits-cvae"], digits, steps=steps, say=silent)


def fid(evidence: Evidence) -> float:
    return frechet_distance(Moments.of(evidence.samples.features), Moments.of(evidence.held_out.features))


def precision(evidence: Evidence) -> float:
    return compare(Manifold.of(evidence.samples.features), Manifold.of(evidence.held_out.features)).precision.value


def test_random_codes_through_a_plain_decoder_are_far_worse_than_a_vae(
    digits: TrainingData, classifier: ConvClassifier, vae: Evidence
) -> None:
    for made in codes_generators(plain(digits, 8), digits):  # codes placed as real ones, and from N(0, 1)
        found = seen(made, digits, classifier)
        assert fid(found) > 10 * fid(vae)
        assert precision(found) < 0.5 * precision(vae)


def test_climbing_a_classifier_gets_a_high_inception_score_and_nothing_real(
    digits: TrainingData, classifier: ConvClassifier, vae: Evidence
) -> None:
    found = seen(climbed_generator(classifier, 50, steps=60, say=silent), digits, classifier)
    rows = (found.samples, found.held_out, vae.samples)
    climbed, real, shipped = (estimate_inception_score(each.probabilities).value for each in rows)
    assert climbed > 1.1 * max(real, shipped)  # of 10 at most; above real rows
    assert fid(found) > 10 * fid(vae)
    assert precision(found) < 0.5 * precision(vae)


def test_a_table_of_training_pictures_is_real_and_all_copies(
    digits: TrainingData, classifier: ConvClassifier, vae: Evidence
) -> None:
    found = seen(table_generator(digits), digits, classifier)
    copies = judge(found, [Panel.MEMORISATION])
    assert fid(found) < fid(vae)
    assert precision(found) > precision(vae)
    assert copies.value("exact_copies") == 1.0
    assert copies.panels[Panel.MEMORISATION].verdict is Verdict.WORSE
    assert judge(vae, [Panel.MEMORISATION]).panels[Panel.MEMORISATION].verdict is not Verdict.WORSE


def test_the_decoder_served_is_the_one_trained(digits: TrainingData) -> None:
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
    found = seen(codes_generators(trained, digits)[0], digits, classifier)
    real = Moments.of(found.held_out.features)
    assert frechet_distance(Moments.of(again), real) < 0.1 * fid(found)
    assert fid(found) > 10 * fid(vae)
    assert judge(found, [Panel.REALISM]).panels[Panel.REALISM].verdict is Verdict.WORSE


@pytest.mark.slow
def test_panels_tell_a_climber_and_a_table_apart(digits: TrainingData, classifier: ConvClassifier) -> None:
    climber = judge(seen(climbed_generator(classifier, 200, steps=40, say=silent), digits, classifier))
    table = judge(seen(table_generator(digits), digits, classifier))
    wanted = {
        Panel.REALISM: (Verdict.WORSE, Verdict.LIKE_REAL),
        Panel.MEMORISATION: (Verdict.LIKE_REAL, Verdict.WORSE),
    }
    for panel, verdicts in wanted.items():
        assert (climber.panels[panel].verdict, table.panels[panel].verdict) == verdicts
    assert climber.panels[Panel.DIVERSITY].verdict is Verdict.WORSE
