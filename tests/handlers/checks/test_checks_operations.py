"""The check `operations`, and models of vectors and models that only encode, decode or score under every check."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handlers.cards.card import Card, Latent, ScoreColumn
from handlers.checks.registry import run_checks
from handlers.checks.report import Finding
from handlers.checks.subject import Subject
from handlers.settings import Settings
from tests.handlers.custom_models import custom_card, write_custom

AUTOENCODER = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, height=4, width=4, channels=1):
        super().__init__()
        self.net = nn.Linear(16, 6)
        self.back = nn.Linear(3, 16)

    def forward(self, z):
        return self.back(z).tanh().unflatten(1, (1, 4, 4))

    def encode(self, x):
        return self.net(x.flatten(1)).chunk(2, dim=1)

    def decode(self, z):
        return torch.tanh(self.back(z)).unflatten(1, (1, 4, 4))

    def score(self, x):
        return -(x - self.decode(self.encode(x)[0])).square().flatten(1).sum(dim=1)
"""
POINTS = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def sample(self, z):
        return self.net(z).clamp(-4, 4)

    def score(self, x):
        return self.net(x).sum(dim=1)
"""
COLUMN = ScoreColumn(name="fit", unit="nats", kind="ESTIMATE", description="Of all pixels.")


def _card(*operations: str) -> Card:
    latent = 3 if {"ENCODE", "DECODE"} & set(operations) else None
    card = custom_card(
        classes=0, operations=operations, latent=Latent(shape=(3,)), latent_dim=latent,
        score_columns=(COLUMN,) if "SCORE" in operations else (),
    )  # fmt: skip
    return card if "SAMPLE" in operations else dataclasses.replace(card, latent=None, encodings=())


def _points_card() -> Card:
    card = custom_card(classes=0, operations=("SAMPLE", "SCORE"), latent=Latent(shape=(2,)), score_columns=(COLUMN,))
    sample = dataclasses.replace(
        card.sample, modality="vector", height=None, width=None, channels=None, length=2, value_range=(-4.0, 4.0)
    )
    return dataclasses.replace(
        card, sample=sample, encodings=("FLOAT32",), family=dataclasses.replace(card.family, config={})
    )


def _check(folder: Path, source: str, card: Card) -> dict[str, Finding]:
    write_custom(folder, source, card)
    subject = Subject(folder=folder, settings=Settings(), picture=folder / "samples.png")
    return {finding.check: finding for finding in run_checks(subject)}


def _failed(findings: dict[str, Finding]) -> list[tuple[str, str]]:
    return [(name, finding.seen) for name, finding in findings.items() if finding.state not in ("passed", "warned")]


@pytest.mark.parametrize(
    ("operations", "seen"),
    [
        pytest.param(
            ("SAMPLE", "ENCODE", "DECODE", "SCORE"),
            "ENCODE, DECODE, SCORE give finite results, the same again and alone", id="all",
        ),
        pytest.param(
            ("ENCODE", "DECODE"), "DECODE give finite results, the same again and alone", id="encode-and-decode"
        ),
        pytest.param(("DECODE",), "no others", id="decode"),
        pytest.param(("SCORE",), "no others", id="score"),
    ],
)  # fmt: skip
def test_a_good_model_passes_every_check(tmp_path: Path, operations: Sequence[str], seen: str) -> None:
    findings = _check(tmp_path, AUTOENCODER, _card(*operations))
    assert _failed(findings) == []
    assert findings["operations"].seen == seen
    assert findings["golden"].seen == "64 samples recorded in golden.safetensors"


def test_a_model_of_points_passes_every_check_and_is_drawn(tmp_path: Path) -> None:
    findings = _check(tmp_path, POINTS, _points_card())
    assert _failed(findings) == []
    assert findings["picture"].seen.endswith("samples.png: 2048 points")
    assert np.asarray(Image.open(tmp_path / "samples.png")).any()


def test_points_of_another_length_are_found(tmp_path: Path) -> None:
    findings = _check(tmp_path, POINTS.replace(".clamp(-4, 4)", "[:, :1]"), _points_card())
    assert findings["output"].change == "return vectors, (B, 2), or set sample.length in model.yaml"


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("return self.net(x.flatten(1)).chunk(2, dim=1)", "return self.net(x.flatten(1))",
         "ENCODE: the family returned shape (7, 6), expected (7, 3)"),
        ("torch.tanh(self.back(z))", "torch.tanh(self.back(z - z.mean(0)))", "DECODE gives a row another result alone"),
        ("return -(x -", "return torch.rand(()) - (x -", "SCORE gives another result for the same rows"),
        ("return -(x -", "return torch.inf - (x -", "SCORE gives NaN or infinite values"),
    ],
    ids=["wrong-shape", "rows-mixed", "random", "infinite"],
)  # fmt: skip
def test_what_is_wrong_with_an_operation_is_named(tmp_path: Path, old: str, new: str, seen: str) -> None:
    source = AUTOENCODER.replace(old, new)
    finding = _check(tmp_path, source, _card("SAMPLE", "ENCODE", "DECODE", "SCORE"))["operations"]
    assert finding.state == "failed"
    assert finding.seen.startswith(seen)


def test_a_decoded_picture_beyond_the_range_is_found(tmp_path: Path) -> None:
    source = AUTOENCODER.replace("torch.tanh(self.back(z))", "3 * torch.tanh(self.back(z))")
    finding = _check(tmp_path, source, _card("SAMPLE", "ENCODE", "DECODE"))["operations"]
    assert finding.change == "end with .clamp(-1.0, 1.0), or correct sample.value_range in model.yaml"


def test_a_missing_method_is_named_with_the_remedy(tmp_path: Path) -> None:
    findings = _check(tmp_path, AUTOENCODER.replace("def encode", "def enc"), _card("SAMPLE", "ENCODE"))
    assert "Generator has no method encode, the card lists ENCODE" in findings["weights"].seen
    assert findings["weights"].change == "add encode(self, ...), or remove ENCODE from operations"
