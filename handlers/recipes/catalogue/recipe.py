"""A recipe: model family, data, length and hyperparameters of the training, and texts of the model card.

The class of a recipe's `fit` chooses how it is trained; see `handlers.recipes.run.training.build_task`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from handlers.cards.card import ConditionName, OperationName, Parameter, ParameterName, Precision, ScoreColumn
from handlers.recipes.data.augmentations import Augmentation, ShiftAndNoise

__all__ = [
    "DIGITS", "PLANE_DUPLICATES", "TRUNCATION", "AdamWFit", "AutoencoderFit", "AutoregressiveFit", "BorrowedFit",
    "ClassifierFit", "CycleGanFit", "DiffusionFit", "GanFit", "ImageDiffusionFit", "ImageRegressionFit", "KnownLawFit",
    "MixtureFit", "PointGanFit",
    "PrincipalFit", "Recipe", "StandardVaeFit", "VaeFit", "VaeGanFit",
]  # fmt: skip

DIGITS = tuple(str(digit) for digit in range(10))
PLANE_DUPLICATES = 0.001
"""Of 10 000 samples: among so many points in a plane, some are so close that their pictures have the same bytes."""

TRUNCATION = Parameter(
    min=0.5,
    max=4.0,
    default=None,
    description="Draws components of z beyond this many standard deviations again: lower is more typical.",
)


@dataclass(frozen=True, kw_only=True)
class AdamWFit:
    """Hyperparameters of AdamW with a learning rate that falls to 0 along half a cosine.

    A run's weights depend on its fit; checkpoints identify it by its repr, so fields keep their names.

    Attributes:
        batch: rows of a step, drawn with replacement.
        rate: learning rate at the start.
        decay: decoupled weight decay.
        averaging: weight of each step's weights in their running average.
        max_gradient_norm: gradients are clipped to this norm.
    """

    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.0
    averaging: float = 0.01
    max_gradient_norm: float = 100.0


@dataclass(frozen=True, kw_only=True)
class ClassifierFit(AdamWFit):
    """Hyperparameters of a classifier.

    Attributes:
        smoothing: share of a label that is distributed over all classes.
        augmentation: random changes of pictures.
    """

    decay: float = 0.05
    smoothing: float = 0.05
    augmentation: Augmentation = field(default_factory=ShiftAndNoise)


@dataclass(frozen=True, kw_only=True)
class VaeFit(AdamWFit):
    """Hyperparameters of an autoencoder; reconstruction and divergence have equal weights."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderFit(AdamWFit):
    """Hyperparameters of an autoencoder, which minimises the cross-entropy of its reconstructions with the pixels.

    Attributes:
        noise: the largest standard deviation of the noise on its input, drawn uniformly for each picture; 0 is none.
    """

    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AutoregressiveFit(AdamWFit):
    """Hyperparameters of a model of log p(x).

    Attributes:
        label_dropout: share of rows that are trained without their class.
        warm_up: steps over which the learning rate rises from 0.
        snapshots: taken during the training; each draws a picture of samples.
    """

    max_gradient_norm: float = 1.0
    label_dropout: float = 0.1
    warm_up: int = 50
    snapshots: int = 10


@dataclass(frozen=True, kw_only=True)
class DiffusionFit(AdamWFit):
    """Hyperparameters of a diffusion model.

    Attributes:
        label_dropout: share of rows that are trained without their class.
        log_sigma_mean: of the normal law of ln σ.
        log_sigma_spread: its standard deviation.
        snapshots: taken during the training.
        probed_samples: of a snapshot.
        probed_steps: of each of these samples.
    """

    batch: int = 32
    averaging: float = 0.005
    max_gradient_norm: float = 2.0
    label_dropout: float = 0.1
    log_sigma_mean: float = -1.0
    log_sigma_spread: float = 1.4
    snapshots: int = 10
    probed_samples: int = 200
    probed_steps: int = 8


@dataclass(frozen=True, kw_only=True)
class ImageDiffusionFit(AdamWFit):
    """Hyperparameters of a diffusion model that is given a reduced picture.

    Attributes:
        log_sigma_mean: of the normal law of ln σ.
        log_sigma_spread: its standard deviation.
        snapshots: taken during the training.
    """

    batch: int = 32
    rate: float = 1e-3
    averaging: float = 0.005
    max_gradient_norm: float = 2.0
    log_sigma_mean: float = -1.0
    log_sigma_spread: float = 1.4
    snapshots: int = 10


@dataclass(frozen=True, kw_only=True)
class ImageRegressionFit(AdamWFit):
    """Hyperparameters of a model that returns the mean of all answers, by the squared error."""

    batch: int = 32
    max_gradient_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PrincipalFit:
    """No hyperparameters: the weights are computed in one step."""


@dataclass(frozen=True, kw_only=True)
class StandardVaeFit(AdamWFit):
    """Hyperparameters of a variational autoencoder whose pixels are drawn as 0 or 1 in every batch."""


@dataclass(frozen=True, kw_only=True)
class VaeGanFit:
    """Hyperparameters of a variational autoencoder with a discriminator, by Adam.

    Attributes:
        batch: rows of a step, drawn with replacement, and as many generated ones.
        warm_share: of the steps, the first ones, without the discriminator; rates fall along half a cosine in each
            part.
        rate: learning rate at the start.
        adversarial_rate: the same at the start of the second part.
        discriminator_features: channels of the discriminator's first convolution.
        discriminator_rate: its learning rate at the start of the second part.
        betas: of Adam, for both.
        pixel_share: of the reconstruction loss of the second part; the rest is of the discriminator's features.
        adversarial_share: size of the adversarial gradient at the decoder's output, over that of the reconstruction.
        averaging: weight of each step's weights in their running average.
    """

    batch: int = 64
    warm_share: float = 0.95
    rate: float = 1e-3
    adversarial_rate: float = 3e-4
    discriminator_features: int = 16
    discriminator_rate: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.9)
    pixel_share: float = 0.2
    adversarial_share: float = 0.5
    averaging: float = 0.002


@dataclass(frozen=True, kw_only=True)
class GanFit:
    """Hyperparameters of a conditional GAN or a DCGAN.

    Attributes:
        batch: real rows of a step, drawn with replacement, and as many generated ones.
        discriminator_features: channels of its first convolution.
        projection: length of the features that its projection compares with the class; 0 is none. A DCGAN's compares
            its last feature maps, of whatever length.
        generator_rate: learning rate at the start.
        discriminator_rate: the same of the discriminator.
        betas: of Adam, for both.
        constant_share: of the steps at full rate; then rates fall linearly.
        last_share: of the rates, at the end.
        averaging: weight of each step's weights in their running average.
        augment_shift: largest shift, in whole pixels, of what the discriminator sees; 0 is none.
    """

    batch: int = 128
    discriminator_features: int = 32
    projection: int = 0
    generator_rate: float = 2e-4
    discriminator_rate: float = 4e-4
    betas: tuple[float, float] = (0.0, 0.9)
    constant_share: float = 0.5
    last_share: float = 0.02
    averaging: float = 0.001
    augment_shift: int = 0


@dataclass(frozen=True, kw_only=True)
class MixtureFit:
    """Hyperparameters of expectation maximisation; a step is one iteration on all rows.

    Attributes:
        ridge: added to the diagonal of covariances, as a share of the mean variance of a principal component.
    """

    ridge: float = 0.01


@dataclass(frozen=True, kw_only=True)
class PointGanFit:
    """Hyperparameters of an adversarial network of points.

    Attributes:
        batch: real points of a step, drawn with replacement, and as many generated ones.
        discriminator_hidden: width of its hidden layers.
        discriminator_steps: of the discriminator for each step of the generator.
        penalty: weight of the squared slope of the discriminator at real points; 0 is none.
        generator_rate: learning rate at the start.
        discriminator_rate: the same of the discriminator.
        betas: of Adam, for both.
        constant_share: of the steps at full rate; then rates fall linearly.
        last_share: of the rates, at the end.
        averaging: weight of each step's weights in their running average.
    """

    batch: int = 128
    discriminator_hidden: int = 64
    discriminator_steps: int = 3
    penalty: float = 0.1
    generator_rate: float = 5e-3
    discriminator_rate: float = 5e-3
    betas: tuple[float, float] = (0.0, 0.9)
    constant_share: float = 0.5
    last_share: float = 0.02
    averaging: float = 0.005


@dataclass(frozen=True, kw_only=True)
class CycleGanFit:
    """Hyperparameters of two generators that undo each other.

    Attributes:
        batch: real rows of each kind in a step, drawn with replacement, and as many generated ones.
        discriminator_features: channels of the discriminators' first convolution.
        cycle_weight: of the mean absolute difference between a picture and its translation there and back.
        middle_noise: standard deviation of the noise on the picture in the middle of a cycle; its range is 2.
        history: generated pictures of each kind that may be shown to a discriminator again.
        generator_rate: learning rate at the start.
        discriminator_rate: the same of the discriminators.
        betas: of Adam, for all.
        constant_share: of the steps at full rate; then rates fall linearly.
        last_share: of the rates, at the end.
        averaging: weight of each step's weights in their running average.
    """

    batch: int = 8
    discriminator_features: int = 32
    cycle_weight: float = 10.0
    middle_noise: float = 0.05
    history: int = 50
    generator_rate: float = 5e-4
    discriminator_rate: float = 5e-4
    betas: tuple[float, float] = (0.5, 0.999)
    constant_share: float = 0.5
    last_share: float = 0.02
    averaging: float = 0.005


@dataclass(frozen=True, kw_only=True)
class KnownLawFit:
    """Nothing is fitted: the configuration is the law."""


@dataclass(frozen=True, kw_only=True)
class BorrowedFit:
    """Nothing is fitted: the weights are those of the recipe's evaluator classifier."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One trainable model.

    Attributes:
        name: of the recipe and of the model.
        description: for the card, as is `intended_use`.
        family: name in `handlers.models.FAMILIES`.
        config: for the family's `from_config`.
        data: name in `handlers.recipes.data.load.DATA_SETS`.
        steps: default number of optimiser steps.
        fit: hyperparameters of its task.
        operations: what a worker can do with it.
        classes: names; empty is unconditional.
        length: coordinates of a point, or bytes of a text; None for a model of images, whose configuration has their
            shape.
        value_range: of the floats it returns or reads.
        precisions: those whose results stay within the tolerance of golden samples.
        starts_from: the model of the store whose weights its training starts from; None draws them.
        evaluator: recipe of the classifier that measures it; None for a classifier or a model of points or text.
        thresholds: by metric, the least value it is shipped with; of duplicates and copies, the largest, else 0.
        parameters: the sampling parameters its family takes; of a model that does not sample, none.
        score_columns: what SCORE returns.
        finds_directions: whether its card has the directions of thickness and slant in its latent space.
        draw_steps: of a draw without parameters.
        conditions: what its samples can be conditional on besides a label.
        prefix_unit: of how many bytes a prefix must be a multiple.
        max_exec_batch: the largest batch that a worker runs.
        measured_samples: how many are drawn to measure it.
    """

    name: str
    description: str
    intended_use: str
    family: str
    config: Mapping[str, Any]
    data: str
    steps: int
    fit: (
        ClassifierFit
        | VaeFit
        | StandardVaeFit
        | AutoencoderFit
        | VaeGanFit
        | AutoregressiveFit
        | DiffusionFit
        | ImageDiffusionFit
        | ImageRegressionFit
        | PrincipalFit
        | GanFit
        | CycleGanFit
        | MixtureFit
        | PointGanFit
        | KnownLawFit
        | BorrowedFit
    )
    operations: tuple[OperationName, ...] = ("SAMPLE",)
    classes: tuple[str, ...] = DIGITS
    length: int | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    precisions: tuple[Precision, ...] = ("fp32",)
    starts_from: str | None = None
    evaluator: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    parameters: Mapping[ParameterName, Parameter] = field(default_factory=lambda: {"truncation": TRUNCATION})
    score_columns: tuple[ScoreColumn, ...] = ()
    finds_directions: bool = False
    draw_steps: int = 1
    conditions: tuple[ConditionName, ...] = ()
    prefix_unit: int = 1
    max_exec_batch: int = 256
    measured_samples: int = 10_000

    @property
    def modality(self) -> Literal["image", "vector", "text"]:
        """What a row of its data is."""
        if self.length is None:
            return "image"
        return "text" if isinstance(self.fit, AutoregressiveFit) else "vector"

    @property
    def given_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the pictures that it is given, where they are reduced ones."""
        given = self.config.get("given")
        return None if given is None else (given["channels"], given["height"], given["width"])

    @property
    def draws(self) -> bool:
        """Whether a request receives pictures, texts or points of it as it encodes them."""
        return bool({"SAMPLE", "TRANSLATE"} & set(self.operations))

    @property
    def samples(self) -> bool:
        """Whether it trains a generator."""
        return "SAMPLE" in self.operations
