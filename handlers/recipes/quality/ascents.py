"""The quality entries of ascents on a classifier's score: how sure it is of them, and what others say.

A module, its data and the classifier whose score it raises enter; entries for its card leave. The others are a density
of the same data, one Gaussian mixture a class, which also classifies by Bayes' rule, and a second classifier.

Source: Nguyen, Yosinski, Clune, "Deep neural networks are easily fooled", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fount.address import Addresses
from fount.intervals import wilson_interval
from handlers.cards.card import Quality
from handlers.family import Classifier, Deadline, Draw, Given, Noise, Translator
from handlers.models.ascent import ClassifierAscent
from handlers.models.mixture import GaussianMixture
from handlers.recipes.catalogue import RECIPES, MixtureFit
from handlers.recipes.data.load import Split, TrainingData
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.measures import count_correct, draw_images, mean_entry, quality_entry
from handlers.recipes.reproducible import reproducible
from handlers.recipes.tasks.mixtures import MixtureTask

__all__ = ["measure_ascent"]

_SEED = 20263
_CHUNK = 100
_SURE = 0.99
_LEVELS = 255
_CHANGED = "became of them on the way to the next class"
_ROWS = {"noise": "samples, which start from noise", "changed": f"test rows, as what {_CHANGED}"}


def measure_ascent(
    data: TrainingData,
    module: ClassifierAscent,
    evaluator: Evaluator,
    second: Callable[[], Classifier] | None,
    *,
    count: int,
) -> Iterator[Quality]:
    """Measure samples, which start from noise, and test rows changed towards the next class.

    Args:
        data: of the classifier.
        module: the family.
        evaluator: the classifier whose weights it has.
        second: trains another classifier, which takes minutes; None leaves its entries out.
        count: of samples, and of test rows if there are as many.
    """
    classes, density = len(data.classes), _fit_density(data)
    real = Split(images=data.test.images[:count], labels=data.test.labels[:count])
    labels, wanted = torch.arange(count) % classes, (real.labels + 1) % classes
    noise, changed = (
        Split(images=draw_images(module, _SEED, count, labels, value_range=(0.0, 1.0)), labels=labels),
        Split(images=_change(module, real.images, wanted), labels=wanted),
    )
    kinds = {"noise": noise, "changed": changed}
    for kind, rows in kinds.items():
        yield _measure_certainty(f"{kind}-certain-share", evaluator.name, evaluator.classifier, rows, real)
        yield _measure_density(kind, data, density, rows.images)
        yield _measure_agreement(f"{kind}-bayes-agrees", "a Gaussian mixture a class", density, rows)
    distances = torch.linalg.vector_norm(changed.images - real.images, dim=(1, 2, 3))
    method = f"Euclidean distance, over pixels between 0 and 1, of {len(distances)} test rows from what {_CHANGED}"
    yield mean_entry("changed-distance", distances, method)
    if second is None:
        return
    other = second()
    hits = count_correct(other, data.test.images, data.test.labels) / len(data.test.labels)
    judge = f"a second classifier, right in {hits:.4f} of all test rows,"
    for kind, rows in kinds.items():
        yield _measure_certainty(f"{kind}-second-certain-share", judge, other, rows, real)
        yield _measure_agreement(f"{kind}-second-agrees", judge, other, rows)


def _fit_density(data: TrainingData) -> GaussianMixture:
    """Fit the mixture of the data set's recipe to the training rows."""
    recipe = next(each for each in RECIPES.values() if each.data == data.name and isinstance(each.fit, MixtureFit))
    with reproducible(_SEED) as generator:
        task = MixtureTask(recipe, data.train, steps=recipe.steps, generator=generator, device=torch.device("cpu"))
        for number in range(recipe.steps):
            task.step(number)
    density = task.averaged()
    assert isinstance(density, GaussianMixture)
    return density


@torch.inference_mode()
def _change(module: Translator, images: Tensor, labels: Tensor) -> Tensor:
    """Change pictures towards classes, with the pixels a client receives."""
    changed = []
    for part, wanted in zip(torch.split(images, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        noise = Noise(addresses=Addresses.of_range(_SEED, 0, len(part)), device=part.device)
        changed.append(module.translate(Given(values=part), wanted, noise, Draw(), Deadline()))
    return (_LEVELS * torch.cat(changed)).round() / _LEVELS


def _measure_certainty(metric: str, judge: str, classifier: Classifier, rows: Split, real: Split) -> Quality:
    """Measure how often a classifier is sure of the wanted class, and of the right class of test rows."""
    sure, count = _count_sure(classifier, rows), len(rows.labels)
    method = (
        f"share of {count} {_ROWS[metric.partition('-')[0]]}, that {judge} gives the wanted class with more than "
        f"{_SURE}, as UINT8; the real value is of {len(real.labels)} test rows and their own class; Wilson interval"
    )
    share = _count_sure(classifier, real) / len(real.labels)
    return quality_entry(metric, sure / count, wilson_interval(sure, count), share, method)


@torch.inference_mode()
def _count_sure(classifier: Classifier, rows: Split) -> int:
    found = torch.cat([classifier.classify(part) for part in torch.split(rows.images, _CHUNK)])
    return int((found.gather(1, rows.labels[:, None]) > _SURE).sum())


def _measure_density(kind: str, data: TrainingData, density: GaussianMixture, images: Tensor) -> Quality:
    """Measure the share that is less likely than every one of as many test rows."""
    count = len(images)
    least = float(_log_density(density, data.test.images[:count]).min())
    others = _log_density(density, data.test.images[count:])
    below = int((_log_density(density, images) < least).sum())
    method = (
        f"share of {count} {_ROWS[kind]}, whose log-density by a Gaussian mixture a class is below that of each of the "
        f"first {len(data.test.images[:count])} test rows; the real value is of the other test rows; Wilson interval"
    )
    real = float((others < least).double().mean()) if len(others) else None
    return quality_entry(f"{kind}-unlikely-share", below / count, wilson_interval(below, count), real, method)


@torch.inference_mode()
def _log_density(density: GaussianMixture, images: Tensor) -> Tensor:
    noise = Noise(addresses=Addresses.of_range(0, 0, len(images)), device=images.device)
    return density.score(images, None, noise, Draw(), Deadline())[:, 0]


def _measure_agreement(metric: str, judge: str, classifier: Classifier, rows: Split) -> Quality:
    """Measure how often the wanted class is a classifier's likeliest."""
    hits, count = count_correct(classifier, rows.images, rows.labels), len(rows.labels)
    method = (
        f"share of {count} {_ROWS[metric.partition('-')[0]]}, whose likeliest class of {judge} is the wanted one; "
        "Wilson interval"
    )
    return quality_entry(metric, hits / count, wilson_interval(hits, count), None, method)
