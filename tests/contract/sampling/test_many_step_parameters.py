"""Wrong parameters of the shipped models that draw in many steps are refused by name, before any worker is called."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from fount.v1 import model_pb2, sampling_pb2
from handlers.cards.card import load_card
from handlers.cards.message import card_to_proto
from service.workers.memory import MemoryPool
from service.workers.torchserve.describe import card_to_model
from tests.contract.gateways import Running, fields, request, serving

STORE = Path(__file__).parents[3] / "model_store"
MODELS = ("digits-pixelcnn", "digits-imagegpt", "digits-diffusion", "grammar-gpt")


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    cards = [card_to_proto(load_card(STORE / name), f"sha256:{k:064}", "") for k, name in enumerate(MODELS)]
    async with serving(MemoryPool(models=[card_to_model(card) for card in cards])) as found:
        yield found


PICTURES = ("digits-pixelcnn", "digits-imagegpt")
DRAWN = (*PICTURES, "grammar-gpt")
WRONG = [
    *[(model, "temperature", -0.1) for model in DRAWN],
    *[(model, "temperature", math.nan) for model in DRAWN],
    *[(model, "top_p", 0.0) for model in DRAWN],
    *[(model, "top_p", 1.1) for model in DRAWN],
    *[(model, "top_k", 0) for model in DRAWN],
    *[(model, "guidance_scale", math.nan) for model in (*PICTURES, "digits-diffusion")],
    *[(model, "steps", 5) for model in DRAWN],
    ("digits-diffusion", "steps", 0),
    ("digits-diffusion", "steps", 100_000),
    ("digits-diffusion", "eta", 1.5),
    ("digits-diffusion", "eta", -0.5),
    ("digits-diffusion", "temperature", 1.0),
    ("grammar-gpt", "guidance_scale", 2.0),
]


@pytest.mark.parametrize(("model", "name", "value"), WRONG, ids=lambda value: str(value))
async def test_it_is_refused_by_name(running: Running, model: str, name: str, value: float) -> None:
    wanted = request(1, model=model_pb2.ModelRef(name=model), parameters=sampling_pb2.Parameters(**{name: value}))
    error = await running.refused(wanted)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert fields(error) == [f"parameters.{name}"]
    assert not running.pool.calls


@pytest.mark.parametrize("model", DRAWN)
async def test_a_temperature_of_0_is_legal(running: Running, model: str) -> None:
    await running.sample(
        request(1, model=model_pb2.ModelRef(name=model), parameters=sampling_pb2.Parameters(temperature=0.0))
    )
    assert running.pool.calls[0].parameters.temperature == 0.0
