"""What a worker says of its model, as the gateway keeps it."""

from __future__ import annotations

from fount.v1 import model_pb2
from service.workers.torchserve.describe import card_to_model


def test_label_names_are_composed() -> None:
    card = model_pb2.Model(sample_spec={"dims": [8, 8, 1]}, condition={"labels": [{"id": 0, "name": "cafe\u0301"}]})
    assert card_to_model(card).labels == ("caf\u00e9",)
