"""Model families, one module each: architecture, configuration and sampling.

A card's family and configuration enter `load_family`; a module that samples, classifies, embeds or transforms leaves.
Custom modules and programs are wrapped by `custom` and loaded by `program`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handlers.family import Family

__all__ = [
    "BASES", "CUSTOM_FAMILY", "FAMILIES", "PROGRAM_FAMILIES", "UnknownFamilyError", "base_file", "load_family",
    "source_file",
]  # fmt: skip

FAMILIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "vae": ("vae", "Vae"),
        "conditional-vae": ("vae", "ConditionalVae"),
        "linear-autoencoder": ("autoencoder", "LinearAutoencoder"),
        "autoencoder": ("autoencoder", "DenseAutoencoder"),
        "conv-autoencoder": ("autoencoder", "ConvAutoencoder"),
        "conv-denoiser": ("autoencoder", "ConvDenoiser"),
        "standard-vae": ("standard_vae", "StandardVae"),
        "conditional-gan": ("gan", "ConditionalGan"),
        "dcgan": ("dcgan", "Dcgan"),
        "classifier": ("classifier", "ConvClassifier"),
        "transforms": ("transforms", "Transforms"),
        "gaussian-mixture": ("mixture", "GaussianMixture"),
        "mixture-density": ("density", "MixtureDensity"),
        "point-gan": ("point_gan", "PointGan"),
        "gated-pixelcnn": ("pixelcnn", "GatedPixelCnn"),
        "image-transformer": ("transformer", "ImageTransformer"),
        "text-transformer": ("transformer", "TextTransformer"),
        "fully-visible": ("belief_net", "FullyVisibleBeliefNet"),
        "procedural-texture": ("procedural_texture", "ProceduralTexture"),
        "edm-diffusion": ("diffusion", "EdmDiffusion"),
        "diffusers-unet": ("diffusers_unet", "DiffusersUnet"),
        "image-diffusion": ("image_diffusion", "ImageDiffusion"),
        "image-regressor": ("image_regressor", "ImageRegressor"),
        "cyclegan": ("cyclegan", "CycleGan"),
        "classifier-ascent": ("ascent", "ClassifierAscent"),
    }
)
"""Family name to (module here, class). Modules are imported on use: an archive contains only its own family's."""

BASES: Mapping[str, str] = MappingProxyType({"image_diffusion": "diffusion"})
"""Module here to the one other module here that it imports; both sources are in the model digest."""

CUSTOM_FAMILY = "module"
"""The family of a class in a file next to the card."""

PROGRAM_FAMILIES = ("torchscript", "exported")
"""The families whose weights file is the whole model."""


class UnknownFamilyError(ValueError):
    """The family is not in the table. Use one that is, or add a module and a line to the table."""

    def __init__(self, name: str) -> None:
        known = ", ".join([*FAMILIES, CUSTOM_FAMILY, *PROGRAM_FAMILIES])
        super().__init__(f"family {name!r} is unknown; known families: {known}")


def load_family(name: str, config: Mapping[str, Any]) -> Family:
    """Build a family's module with untrained weights.

    Args:
        name: a key of `FAMILIES`.
        config: passed to the family's `from_config`.

    Raises:
        UnknownFamilyError: the name is not in the table.
        ValueError: the configuration is wrong; the message names the key.
    """
    module, kind = _find(name)
    family: type[Family] = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    return family.from_config(config)


def source_file(name: str) -> Path:
    """Find the one source file of a family without importing it; all programs have the same.

    Raises:
        UnknownFamilyError: the name is not in the table.
    """
    stem = "program" if name in PROGRAM_FAMILIES else _find(name)[0]
    return Path(__file__).parent / f"{stem}.py"


def base_file(name: str) -> Path | None:
    """Find the source file of the family that a family imports; None for one that imports none."""
    base = BASES.get(FAMILIES[name][0]) if name in FAMILIES else None
    return None if base is None else Path(__file__).parent / f"{base}.py"


def _find(name: str) -> tuple[str, str]:
    if name not in FAMILIES:
        raise UnknownFamilyError(name)
    return FAMILIES[name]
