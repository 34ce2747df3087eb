"""docs/models.md: its numbers are those of the cards."""

from __future__ import annotations

import re

import yaml

from tests.unit.repository.test_repository import ROOT

CELL = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")


def rows() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The models of table rows, and the values with intervals in them."""
    lines = (ROOT / "docs/models.md").read_text().splitlines()
    found = [(re.match(r"\| `([a-z0-9-]+)`", line), CELL.findall(line)) for line in lines]
    return [(match[1], cells) for match, cells in found if match and cells]


def test_every_number_is_in_its_card() -> None:
    wrong = []
    for model, cells in rows():
        quality = yaml.safe_load((ROOT / f"model_store/{model}/model.yaml").read_text())["quality"]
        known = [(entry["value"], *entry["interval"]) for entry in quality]
        for cell in cells:
            digits = len(cell[0].partition(".")[2])
            if not any(tuple(f"{value:.{digits}f}" for value in entry) == cell for entry in known):
                wrong.append((model, cell))
    assert wrong == []


def test_it_has_most_of_the_models() -> None:
    assert len({model for model, _ in rows()}) >= 15
