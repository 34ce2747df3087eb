"""Small generators with a fault planted in them, written as their authors would: a card, a file, and weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from handlers.cards import card as cards
from handlers.checks.registry import run_checks
from handlers.checks.report import Finding
from handlers.checks.subject import Subject
from handlers.loading.custom_source import build_custom_class
from handlers.settings import Settings
from tests.handlers.toys import toy_card

SOURCE = """\
import random
import time
import torch
import torch.nn.functional as F
from torch import nn

class Shift(nn.Module):
    def forward(self, x):
        return x - x.mean(0)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 16)
        self.outer = nn.Linear(16, 16)

    def forward(self, x):
        x = self.inner(x)
        return self.outer(x - x.mean(0))

class Time(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4)

    def forward(self, x):
        return self.lstm(x.reshape(-1, 4, 4))[0].reshape(-1, 16)

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.embed = nn.Embedding(3, 4)
        self.net = nn.Sequential(nn.Linear(8, 16), {layer}, nn.Linear(16, 16))
        self.calls = 0

    def sample(self, z, label):
        {before}
        x = 4 * self.net(torch.cat([z, self.embed(label)], 1))
        {after}
        return {result}
"""
RESULT = "torch.sigmoid(x).reshape(-1, 1, 4, 4)"


def plant(
    folder: Path,
    *,
    layer: str = "nn.ReLU()",
    before: str = "pass",
    after: str = "pass",
    result: str = RESULT,
    source: str = SOURCE,
    card: dict[str, Any] | None = None,
) -> Path:
    """Write a model's folder, whose 4×4 pictures of three classes come from one file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("layer", layer), ("before", before), ("after", after), ("result", result)):
        source = source.replace(f"{{{name}}}", text)
    file = folder / "generator.py"
    file.write_text(source)
    torch.manual_seed(0)
    save_file(build_custom_class(file, "Generator", {}).state_dict(), folder / "weights.safetensors")
    cards.write_card(custom_card(**(card or {})), folder)
    return folder


def custom_card(**changes: Any) -> cards.Card:
    card = dataclasses.replace(
        toy_card(max_exec_batch=8),
        name="planted",
        family=cards.Family(name="module", source="generator.py", class_name="Generator"),
        latent=cards.Latent(shape=(4,)),
        parameters={},
        precisions=("fp32",),
        weights=cards.Weights(file="weights.safetensors"),
    )
    return dataclasses.replace(card, **changes)


def find(folder: Path, check: str, **changes: Any) -> Finding:
    """Run the checks up to one, in this process."""
    subject = Subject(folder=folder, settings=Settings(), picture=folder / "check.png", **changes)
    return next(finding for finding in run_checks(subject) if finding.check == check)
