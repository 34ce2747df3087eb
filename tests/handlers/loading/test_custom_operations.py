"""Custom modules that encode, decode, score, classify and embed, and what is refused of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fount.address import Addresses, Stream
from fount.v1 import model_pb2
from handlers.cards.card import Card, Latent, Parameter, ScoreColumn
from handlers.trial import open_trial
from tests.handlers.custom_models import custom_card, reason_of, serve, write_custom
from tests.handlers.toys import given_item, image_item, request, sample_item, send

SOURCE = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, height=4, width=4, channels=1):
        super().__init__()
        self.net = nn.Linear(16, 3)
        self.back = nn.Linear(3, 16)
        self.head = nn.Linear(3, 3)

    def forward(self, z, label):
        return self.decode(z)

    def encode(self, x):
        return self.net(x.flatten(1))

    def decode(self, z, label=None):
        return torch.tanh(self.back(z)).unflatten(1, (1, 4, 4))

    def score(self, x, label=None, importance_samples=1, noise=None):
        drawn = torch.stack([noise(step)[:, 0] for step in range(importance_samples)]).mean(dim=0)
        return drawn if label is None else drawn + label

    def classify(self, x):
        return torch.softmax(self.head(self.embed(x)), dim=1)

    def embed(self, x):
        return torch.relu(self.net(x.flatten(1)))
"""
OPERATIONS = ("SAMPLE", "ENCODE", "DECODE", "SCORE", "CLASSIFY", "EMBED")


def _card(**changes: object) -> Card:
    drawn = ScoreColumn(name="drawn", unit="nats", kind="ESTIMATE", description="Of 16 pixels.")
    listed = Parameter(min=1.0, max=8.0, default=2.0, description="Draws.")
    card = custom_card(
        operations=OPERATIONS,
        latent=Latent(shape=(3,)),
        latent_dim=3,
        score_columns=(drawn,),
        parameters={"importance_samples": listed},
    )
    return dataclasses.replace(card, **changes)  # type: ignore[arg-type]


def test_a_module_with_the_methods_offers_every_operation(tmp_path: Path) -> None:
    module = write_custom(tmp_path / "own", SOURCE, _card())
    worker = serve(tmp_path / "own", tmp_path)
    images = np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 4, 4, 1)
    x, z = torch.from_numpy(images).permute(0, 3, 1, 2), torch.linspace(-1, 1, 9).reshape(3, 3)
    labels = (0, 1, 2)

    def run(name: str, item: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        reply = send(worker, request(item, operation=model_pb2.Operation.Value(f"OPERATION_{name}")))  # type: ignore[arg-type]
        assert reply.items[0].WhichOneof("outcome") == "value", reply
        value = reply.items[0].value
        return np.frombuffer(value.data, "<f4").reshape(tuple(value.dims))

    assert module is not None
    with torch.no_grad():
        codes = run("ENCODE", given_item(images, labels=labels))
        np.testing.assert_allclose(codes[:, 0], module.encode(x), atol=1e-6)  # type: ignore[operator]
        assert not codes[:, 1].any()
        decoded = module.decode(z).permute(0, 2, 3, 1)  # type: ignore[operator]
        np.testing.assert_allclose(run("DECODE", given_item(z.numpy(), labels=labels)), decoded, atol=1e-6)
        np.testing.assert_allclose(run("CLASSIFY", image_item(images)), module.classify(x), atol=1e-6)  # type: ignore[operator]
        np.testing.assert_allclose(run("EMBED", image_item(images)), module.embed(x), atol=1e-6)  # type: ignore[operator]
    assert run("SAMPLE", sample_item(count=3)).shape == (3, 4, 4, 1)
    free, given = (run("SCORE", given_item(images, labels=each)) for each in ((), labels))
    np.testing.assert_allclose(given - free, [[0], [1], [2]], atol=1e-5)


def test_a_module_that_only_scores_needs_no_z(tmp_path: Path) -> None:
    source = SOURCE.replace("def forward(", "def unused(")
    write_custom(tmp_path, source, _card(operations=("SCORE",), latent=None, latent_dim=None, prior=(), encodings=()))
    assert "golden" in reason_of(tmp_path)  # only what was not recorded is missing


@pytest.mark.parametrize("name", ["encode", "decode", "score", "classify", "embed"])
def test_a_missing_method_is_named_with_its_operation(tmp_path: Path, name: str) -> None:
    write_custom(tmp_path, SOURCE.replace(f"def {name}(", "def other("), _card())
    remedy = f"add {name}(self, ...), or remove {name.upper()} from operations"
    assert f"Generator has no method {name}, the card lists {name.upper()}; {remedy}" in reason_of(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("decode(self, z, label=None)", "decode(self, z)", "Generator.decode(z) takes no label, the card has classes"),
        ("encode(self, x)", "encode(self)", "Generator.encode() takes no x; make x its first parameter"),
        ("score(self, x, label=None,", "score(self, x, label,", "give label the default None, with which"),
        ("importance_samples=1, noise=None", "*, count=1, noise=None", "the card lists importance_samples, Generator"),
        ("embed(self, x)", "embed(self, x, scale)", "Generator.embed(x, scale) takes scale after x, the card has no"),
    ],
    ids=["decode-without-label", "encode-of-nothing", "score-needs-a-label", "unused-parameter", "embed-with-another"],
)  # fmt: skip
def test_a_method_that_cannot_be_called_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    write_custom(tmp_path, SOURCE.replace(old, new), _card())
    assert reason in reason_of(tmp_path)


def test_a_result_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    source = SOURCE.replace("return self.net(x.flatten(1))", "return {'mean': x}")
    write_custom(tmp_path, source, _card())
    assert "Generator.encode(x) returned a dict; return a tensor (B, latent_dim), or two" in reason_of(tmp_path)


TRANSLATOR = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, height=4, width=4, channels=1):
        super().__init__()
        self.unused = nn.Linear(1, 1)

    def translate(self, x, label, z):
        return (x + label[:, None, None, None] / 4 + z[:, :, None, None] / 100).clamp(-1, 1)
"""


def _translator(**changes: object) -> Card:
    return _card(**{"operations": ("TRANSLATE",), "prior": (), "latent": Latent(shape=(1,))} | _PLAIN | changes)


_PLAIN = {"latent_dim": None, "score_columns": (), "parameters": {}}


def test_a_module_translates_with_label_and_z(tmp_path: Path) -> None:
    write_custom(tmp_path, TRANSLATOR, _translator())
    model, images = open_trial(tmp_path), np.zeros((3, 4, 4, 1), np.float32)
    first, later = (model.translate(images, start_index=start).reshape(3, 16) for start in (0, 3))
    assert np.ptp(first, axis=1).tolist() == [0, 0, 0]
    z = Addresses.of_range(0, 0, 6).normals(Stream.LATENT, 1)
    labels = np.arange(6)[:, None] % 3
    np.testing.assert_allclose(np.concatenate([first, later])[:, :1], labels / 4 + z / 100, atol=1e-6)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("translate(self, x, z)", "Generator.translate(x, z) takes no label, the card has classes"),
        ("translate(self, z)", "Generator has no method translate"),
        ("translate(self, x, label, z, w)", "needs w, which workers do not provide"),
    ],
    ids=["no-label", "no-method", "unknown"],
)
def test_a_translate_that_cannot_be_called_is_refused(tmp_path: Path, signature: str, reason: str) -> None:
    source = TRANSLATOR.replace("translate(self, x, label, z)", signature)
    write_custom(tmp_path, source.replace("translate", "other") if "no method" in reason else source, _translator())
    assert reason in reason_of(tmp_path)
