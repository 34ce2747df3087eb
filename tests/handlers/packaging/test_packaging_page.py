"""Statements and examples of docs/packaging.md are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from fount.address import Addresses
from handlers.cards.card import CARD_FILE, load_card
from handlers.checks.registry import CHECKS
from handlers.cli.new import new
from handlers.execution.network import build_network
from handlers.execution.rows import SampleRows
from handlers.family import Draw
from handlers.loading.build import build_module
from handlers.models import CUSTOM_FAMILY, FAMILIES, PROGRAM_FAMILIES
from handlers.settings import Settings
from handlers.trial import open_trial

PAGE = (Path(__file__).parents[3] / "docs/packaging.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def block(title: str, language: str = "python") -> str:
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)[0]


def begin(store: Path, *options: str) -> Path:
    result = CliRunner().invoke(new, ["mine", *options, "--model-store", str(store)])
    assert result.exit_code == 0, result.output
    return store / "mine"


def bring(folder: Path, source: str, **changes: object) -> None:
    """Put a class of the page into a folder, with untrained weights, and change its card."""
    (folder / "generator.py").write_text(source)
    fields = yaml.safe_load((folder / CARD_FILE).read_text()) | changes
    (folder / CARD_FILE).write_text(yaml.safe_dump(fields))
    names: dict[str, type[nn.Module]] = {}
    exec(source, names)
    save_file(names["Generator"](**fields["family"]["config"]).state_dict(), folder / "weights.safetensors")


def test_every_check_is_in_the_table() -> None:
    named = re.findall(r"^\| (`[\w`, -]+`) \|", section("The checks of `fount check`"), re.M)
    assert [name for cell in named for name in re.findall(r"`([\w-]+)`", cell)] == [check.name for check in CHECKS]


def test_every_family_that_samples_is_in_the_table() -> None:
    cells = re.findall(r"^\| (`.*?) \|", section("Three ways in"), re.M)[1:]
    named = {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}
    assert named == {CUSTOM_FAMILY, *PROGRAM_FAMILIES, *FAMILIES} - {"classifier", "transforms"}


def test_the_conditional_class_fits_the_card_that_is_written(tmp_path: Path) -> None:
    folder = begin(tmp_path, "--labels", "cat,dog")
    bring(folder, block("Conditional models"))
    cat, dog = (open_trial(folder).draw(count=1, seed=1, label=label) for label in (0, 1))
    assert cat.shape == (1, 32, 32, 3)
    assert (cat != dog).any()


@pytest.fixture
def many_steps(tmp_path: Path) -> Path:
    folder = begin(tmp_path)
    fields = yaml.safe_load((folder / CARD_FILE).read_text())
    source = block("Many-step samplers")
    parameters = yaml.safe_load(block("Many-step samplers", "yaml"))["parameters"]
    family = fields["family"] | {"config": {"channels": 3}}
    bring(folder, source, family=family, latent={"shape": [3, 32, 32]}, parameters=parameters)
    return folder


def test_the_many_step_class_takes_its_steps_from_the_request(many_steps: Path) -> None:
    card = load_card(many_steps)
    network = build_network(card, build_module(card, many_steps), Settings())
    rows = SampleRows(addresses=Addresses.of_range(1, 0, 2), labels=None)
    few, many, again = (network.run("SAMPLE", rows, Draw(steps=steps)) for steps in (2, 20, 20))
    assert (few != many).any()
    assert many.tobytes() == again.tobytes()


def test_the_documented_export_accepts_any_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begin(tmp_path, "--latent", "32")
    fields = yaml.safe_load((folder / CARD_FILE).read_text())
    fields |= {"family": {"name": "exported"}, "weights": {"file": "generator.pt2"}}
    (folder / CARD_FILE).write_text(yaml.safe_dump(fields))
    monkeypatch.chdir(folder)
    module = nn.Sequential(nn.Linear(32, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
    exec(block("Three ways in"), {"torch": torch, "module": module})
    assert open_trial(folder).draw(count=5).shape == (5, 32, 32, 3)


def test_every_link_of_the_page_exists() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", PAGE)
    assert links
    assert [link for link in links if not (Path(__file__).parents[3] / "docs" / link).exists()] == []
