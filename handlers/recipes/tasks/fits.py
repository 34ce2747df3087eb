"""Fits: the numbers a recipe is trained with, one record a kind of task.

The catalogue fills them in, tasks read them. A fit is part of what a run's weights depend on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from handlers.recipes.tasks.augmentations import Augmentation, ShiftAndNoise

__all__ = ["ClassifierFit", "Descent", "GanFit", "VaeFit"]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How one network goes downhill: Adam with decoupled decay, and a rate that falls to 0 along half a cosine.

    Attributes:
        batch: rows a step, drawn with replacement.
        rate: learning rate at the start.
        decay: decoupled weight decay.
        averaging: weight of each step's weights in their running average.
        max_gradient_norm: longer gradients are shortened to this.
    """

    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.0
    averaging: float = 0.01
    max_gradient_norm: float = 100.0


@dataclass(frozen=True, kw_only=True)
class ClassifierFit(Descent):
    """How a classifier is trained.

    Attributes:
        decay: decoupled weight decay.
        smoothing: share of a label that is spread over all classes.
        augmentation: how pictures are changed.
    """

    decay: float = 0.05
    smoothing: float = 0.05
    augmentation: Augmentation = field(default_factory=ShiftAndNoise)


@dataclass(frozen=True, kw_only=True)
class VaeFit(Descent):
    """How an autoencoder is trained; nothing stands between reconstruction and divergence to be chosen."""


@dataclass(frozen=True, kw_only=True)
class GanFit:
    """How a conditional GAN is trained.

    Attributes:
        batch: real rows a step, drawn with replacement, and as many generated ones.
        discriminator_features: channels of its first convolution.
        projection: length of the features that its projection compares with the class; 0 is none.
        generator_rate: learning rate at the start.
        discriminator_rate: the same of the discriminator.
        betas: of Adam, for both.
        constant_share: of the steps at full rate; then rates fall in a straight line.
        last_share: of the rates that is left at the end.
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
