"""Model families, one file each: architecture, configuration and sampling together.

A card's family and configuration enter `load_family`; a module that samples, classifies, embeds or transforms leaves.
Modules and programs of one's own come in beside them, through `own` and `program`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handlers.family import Classifier, Sampler, Transformer

__all__ = [
    "CUSTOM_FAMILY",
    "FAMILIES",
    "PROGRAM_FAMILIES",
    "UnknownFamilyError",
    "load_family",
    "source_file",
]  # fmt: skip

FAMILIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "vae": ("vae", "Vae"),
        "conditional-vae": ("vae", "ConditionalVae"),
        "conditional-gan": ("gan", "ConditionalGan"),
        "classifier": ("classifier", "ConvClassifier"),
        "transforms": ("transforms", "Transforms"),
    }
)
"""Family name to (file here without .py, class). Files are imported only when asked for: an archive has one."""

CUSTOM_FAMILY = "module"
"""The family of a class that lies in a file beside the card."""

PROGRAM_FAMILIES = ("torchscript", "exported")
"""The families whose weights file is the whole model."""


class UnknownFamilyError(ValueError):
    """The family is not in the table. Name one that is, or add its file and a line to the table."""

    def __init__(self, name: str) -> None:
        known = ", ".join([*FAMILIES, CUSTOM_FAMILY, *PROGRAM_FAMILIES])
        super().__init__(f"family {name!r} is unknown; known families: {known}")


def load_family(name: str, config: Mapping[str, Any]) -> Sampler | Classifier | Transformer:
    """Build a family's module with untrained weights.

    Args:
        name: a key of `FAMILIES`.
        config: given to the family's `from_config` as it is.

    Raises:
        UnknownFamilyError: the name is not in the table.
        ValueError: the configuration is wrong; the message names the key.
    """
    file, kind = _find(name)
    family: type[Sampler | Classifier | Transformer] = getattr(importlib.import_module(f"{__name__}.{file}"), kind)
    return family.from_config(config)


def source_file(name: str) -> Path:
    """Find the one file a family is written in, without importing it; programs are run by one file, too.

    Raises:
        UnknownFamilyError: the name is not in the table.
    """
    stem = "program" if name in PROGRAM_FAMILIES else _find(name)[0]
    return Path(__file__).parent / f"{stem}.py"


def _find(name: str) -> tuple[str, str]:
    if name not in FAMILIES:
        raise UnknownFamilyError(name)
    return FAMILIES[name]
