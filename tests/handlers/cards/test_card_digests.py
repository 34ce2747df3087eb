"""Model digests: what they hang on, and what they do not."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from handlers.cards.card import CardError, Parameter, load_card
from handlers.cards.digests import check_weights, model_digest
from tests.handlers.cards.test_card import WEIGHTS, plain_card, write


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(CardError, match=r"weights.digest: weights.safetensors has sha256:d9298a10"):
        check_weights(card, tmp_path)


def test_absent_weights_are_named(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(CardError, match=r"weights.file: weights.safetensors is not in .*; put it beside the card"):
        check_weights(card, tmp_path)


def test_a_model_digest_is_the_hash_of_canonical_json(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("source")
    digest = model_digest(load_card(write(tmp_path, plain_card())), tmp_path, source)
    canonical = (
        '{"config":{"classes":["a","b"],"config":{"latent_dim":2},"defaults":{"truncation":null},"family":"conditional-vae","max_exec_batch":4,'
        '"operations":["SAMPLE"],"prior":[0.25,0.75],'
        '"sample":{"channels":1,"height":8,"modality":"image","value_range":[0.0,1.0],"width":4}},'
        '"execution":"execution-1","noise":"philox4x32-10/box-muller-1","source":"SOURCE","weights":"WEIGHTS"}'
    )
    for word, content in (("SOURCE", b"source"), ("WEIGHTS", WEIGHTS)):
        canonical = canonical.replace(word, "sha256:" + hashlib.sha256(content).hexdigest())
    assert digest == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"classes": ("a", "c")}, id="classes"),
        pytest.param({"operations": ("CLASSIFY",)}, id="operations"),
        pytest.param({"prior": (0.5, 0.5)}, id="prior"),
        pytest.param(
            {"parameters": {"truncation": Parameter(min=0.5, max=4.0, default=2.0, description="Bounds z.")}},
            id="a default",
        ),
    ],
)
def test_a_model_digest_changes_with_what_is_served(tmp_path: Path, change: dict[str, Any]) -> None:
    card = load_card(write(tmp_path, plain_card()))
    assert model_digest(dataclasses.replace(card, **change), tmp_path) != model_digest(card, tmp_path)


def test_a_model_digest_changes_with_the_way_of_execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card(write(tmp_path, plain_card()))
    before = model_digest(card, tmp_path)
    monkeypatch.setattr("handlers.cards.digests.EXECUTION_VERSION", "execution-2")
    assert model_digest(card, tmp_path) != before


def test_a_model_digest_holds_nothing_measured(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    other = dataclasses.replace(card, quality=(), description="Another.", version="2.0")
    assert model_digest(other, tmp_path) == model_digest(card, tmp_path)
