"""Model folders of the lessons: data and a classifier enter, four folders for `fount pack` leave.

`lesson-codes` and `lesson-codes-unscaled` are one plain decoder with two distributions of codes, `lesson-climbed` and
`lesson-table` are two tables of pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.lessons.generators import codes, pictures
from benchmarks.lessons.gradient_ascent import ascend
from benchmarks.lessons.plain_autoencoder import codes_of, train_plain
from handlers.cards.card import Card, Family, Golden, Latent, Limits, Sample, Weights, write_card
from handlers.cards.digests import file_digest
from handlers.loading.build import build_module
from handlers.models.classifier import ConvClassifier
from handlers.models.vae import Autoencoder
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import TrainingData
from handlers.verification.golden import record_golden

__all__ = [
    "LESSONS",
    "BuiltGenerator",
    "Lesson",
    "ascent_generator",
    "build_lessons",
    "codes_generators",
    "table_generator",
]

_ASCENT_COUNT = 2000
_GENERATORS = Path(__file__).parent / "generators"
_WEIGHTS, _GOLDEN, _SOURCE = "weights.safetensors", "golden.safetensors", "generator.py"

BuiltGenerator = tuple[nn.Module, dict[str, Any]]
"""A generator, and the arguments of its class."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One generator, and the expected result of its evaluation.

    Attributes:
        name: of the model.
        description: for its card.
        expected: expected result, for the table.
        source: the file of its class.
        latent_dim: of its z.
    """

    name: str
    description: str
    expected: str
    source: str
    latent_dim: int | None


LESSONS: Mapping[str, Lesson] = {
    lesson.name: lesson
    for lesson in (
        Lesson(
            name="lesson-codes",
            description="Random codes, with the mean and sd of real codes, through the decoder of a plain autoencoder.",
            expected="far worse than the variational autoencoder of the same architecture",
            source="codes.py", latent_dim=None,
        ),
        Lesson(
            name="lesson-codes-unscaled",
            description="Codes drawn from N(0, 1) through the decoder of a plain autoencoder.",
            expected="the same, worse still",
            source="codes.py", latent_dim=None,
        ),
        Lesson(
            name="lesson-climbed",
            description="Pictures by gradient ascent on a classifier's score from noise.",
            expected="a high Inception score, and nothing like real rows",
            source="pictures.py", latent_dim=1,
        ),
        Lesson(
            name="lesson-table",
            description="A lookup table of the training pictures.",
            expected="as real as real rows, and every sample a copy",
            source="pictures.py", latent_dim=1,
        ),
    )
}  # fmt: skip
"""By name of the model."""


def build_lessons(
    data: TrainingData,
    classifier: ConvClassifier,
    store: Path,
    *,
    steps: int | None = None,
    threads: int = 1,
    log: Callable[[str], None] = print,
) -> None:
    """Train, compute and write the four folders, unless all exist.

    Args:
        data: of handlers.recipes.data.load, "digits" or "mnist".
        classifier: of the same data.
        store: model store of the folders.
        steps: of the plain autoencoder's training; None: the recipe's.
        threads: torch's, of the training.
        log: called with progress messages.
    """  # fmt: skip
    if all((store / name / "model.yaml").is_file() for name in LESSONS):
        return
    recipe = RECIPES[f"{data.name}-cvae"]
    plain = train_plain(recipe, data, steps=steps or recipe.steps, threads=threads, log=log)
    built = dict(zip(("lesson-codes", "lesson-codes-unscaled"), codes_generators(plain, data), strict=True))
    built |= {
        "lesson-climbed": ascent_generator(classifier, _ASCENT_COUNT, log=log),
        "lesson-table": table_generator(data),
    }
    for name, (module, config) in built.items():
        _write(LESSONS[name], store / name, data, module, config)


def codes_generators(plain: Autoencoder, data: TrainingData) -> tuple[BuiltGenerator, BuiltGenerator]:
    """Build the decoder with codes of the mean and sd of real codes, and with codes from N(0, 1)."""
    of = plain.config
    config = {
        "latent_dim": of.latent_dim, "classes": of.classes, "height": of.height, "width": of.width,
        "channels": of.channels, "features": of.decoder_features, "stages": of.stages, "hidden": of.hidden,
    }  # fmt: skip
    decoder = {name: value for name, value in plain.state_dict().items() if name.startswith("decoder")}
    real = codes_of(plain, data.train)
    placed = ((real.mean(dim=0), real.std(dim=0)), (torch.zeros(of.latent_dim), torch.ones(of.latent_dim)))
    scaled, unscaled = (_codes(config, decoder | {"mean": mean, "sd": sd}) for mean, sd in placed)
    return scaled, unscaled


def _codes(config: dict[str, Any], state: dict[str, Tensor]) -> BuiltGenerator:
    module = codes.Generator(**config)
    module.load_state_dict(state)
    return module.eval(), config


def ascent_generator(
    classifier: ConvClassifier, count: int, *, steps: int = 60, log: Callable[[str], None] = print
) -> BuiltGenerator:
    """Build a table of pictures by gradient ascent, equally many of each class."""
    classes = classifier.config.classes
    labels = torch.arange(count) * classes // count
    return _table(ascend(classifier, labels, steps=steps, log=log), labels, classes)


def table_generator(data: TrainingData) -> BuiltGenerator:
    """Build a table of all training rows."""
    images = (data.train.images * 255).round().to(torch.uint8)
    return _table(images, data.train.labels, len(data.classes))


def _table(images: Tensor, labels: Tensor, classes: int) -> BuiltGenerator:
    """Build a generator from pictures (N, C, H, W) uint8, sorted so that a class is a range of rows."""
    rows, channels, height, width = images.shape
    config = {"rows": rows, "classes": classes, "height": height, "width": width, "channels": channels}
    count = torch.bincount(labels, minlength=classes)
    module = pictures.Generator(**config)
    order = torch.argsort(labels, stable=True)
    module.load_state_dict({"pictures": images[order], "first": count.cumsum(0) - count, "count": count})
    return module.eval(), config


def _write(lesson: Lesson, folder: Path, data: TrainingData, module: nn.Module, config: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(_GENERATORS / lesson.source, folder / _SOURCE)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / _WEIGHTS)
    card = _card(lesson, folder, data, config)
    record_golden(card, build_module(card, folder), folder / _GOLDEN)
    write_card(card, folder)


def _card(lesson: Lesson, folder: Path, data: TrainingData, config: dict[str, Any]) -> Card:
    classes, (channels, height, width) = data.classes, data.train.images.shape[1:]
    return Card(
        name=lesson.name,
        version="1.0",
        description=lesson.description,
        family=Family(name="module", config=config, source=_SOURCE, class_name="Generator"),
        operations=("SAMPLE",),
        classes=classes,
        prior=(1 / len(classes),) * len(classes),
        latent=Latent(shape=(lesson.latent_dim or config["latent_dim"],)),
        sample=Sample(modality="image", height=height, width=width, channels=channels, value_range=(0.0, 1.0)),
        parameters={},
        encodings=("UINT8", "FLOAT32", "PNG"),
        limits=Limits(max_count=100_000_000, max_labels=100_000, max_exec_batch=256),
        precisions=("fp32",),
        data_licence=data.licence,
        intended_use="To test the evaluation of a generator with a known fault.",
        weights=Weights(file=_WEIGHTS, digest=file_digest(folder / _WEIGHTS)),
        golden=Golden(file=_GOLDEN),
    )
