"""Read class names from README.md of a data hub's checkout, whose front matter describes the columns.

Parquet files made outside the library `datasets` hold numbers alone, and this file is the only place of their names.
What cannot be understood gives no names, since a README is written for people.

Source: Hugging Face Hub, "Dataset cards", metadata `dataset_info`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fount.documents import DocumentError, parse
from fount.files import open_regular
from fount.plain_yaml import load_yaml

__all__ = ["CARD_FILE", "names_in_card"]

CARD_FILE = "README.md"
"""The file, in the folder of the data set."""

_MAX_BYTES = 1 << 20
_FENCE = "---\n"


def names_in_card(root: Path, configuration: str, column: str) -> tuple[str, ...]:
    """Read the names of the labels 0, 1, ... of a column; empty where the card has none.

    Args:
        root: the folder of the card.
        configuration: the one to read where the card describes several; the name of the folder of its files.
        column: of the labels.
    """
    try:
        with open_regular(root / CARD_FILE) as stream:
            text = stream.read(_MAX_BYTES).decode(errors="replace").replace("\r\n", "\n")
        front = text.removeprefix(_FENCE).partition(f"\n{_FENCE}")[0] if text.startswith(_FENCE) else ""
        found = load_yaml(front)["dataset_info"]
        infos = found if isinstance(found, list) else [found]
        info = infos[0] if len(infos) == 1 else next(e for e in infos if e["config_name"] == configuration)
        feature = next(each for each in info["features"] if each["name"] == column)
        return _in_order(feature["dtype"]["class_label"]["names"])
    except (OSError, DocumentError, KeyError, IndexError, TypeError, StopIteration):
        return ()


def _in_order(names: Any) -> tuple[str, ...]:
    """The names of a list, or of a mapping whose keys are the labels; each as it is written."""
    if isinstance(names, list):
        return parse(tuple[str, ...], names)
    by_label = parse(dict[str, str], names)
    return tuple(by_label[str(label)] for label in range(len(by_label)))
