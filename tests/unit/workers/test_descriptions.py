"""What a worker says of its model, as the gateway keeps it."""

from __future__ import annotations

import pytest

from fount.v1 import model_pb2
from service.domain import ConditionKind, Dtype, Encoding, Modality
from service.errors import WorkerFault
from service.workers.torchserve.describe import card_to_model


def test_label_names_are_composed() -> None:
    card = model_pb2.Model(sample_spec={"dims": [8, 8, 1]}, condition={"labels": [{"id": 0, "name": "cafe\u0301"}]})
    assert card_to_model(card).labels == ("caf\u00e9",)


@pytest.mark.parametrize(("dims", "modality"), [([8, 8, 1], Modality.IMAGE), ([2], Modality.VECTOR)])
def test_samples_of_three_dims_are_pictures_and_of_one_vectors(dims: list[int], modality: Modality) -> None:
    model = card_to_model(model_pb2.Model(sample_spec={"dims": dims}))
    assert (model.modality, model.sample_dims, model.max_text_bytes) == (modality, tuple(dims), 0)


def test_a_text_takes_its_most_bytes_and_has_no_other_encoding() -> None:
    model = card_to_model(_text_card(max_text_bytes=40))
    assert (model.modality, model.sample_dims, model.max_text_bytes) == (Modality.TEXT, (40,), 40)
    assert (model.sample_bytes(Dtype.UINT8), model.encodings) == (40, frozenset({Encoding.UINT8}))
    assert (model.conditions, model.prefix_unit) == (frozenset({ConditionKind.PREFIX}), 1)


def test_texts_without_a_limit_are_refused() -> None:
    with pytest.raises(WorkerFault, match=r"its card has no limits\.max_text_bytes"):
        card_to_model(_text_card(max_text_bytes=0))


def _text_card(*, max_text_bytes: int) -> model_pb2.Model:
    return model_pb2.Model(
        sample_spec={"dims": [-1], "modality": model_pb2.SampleSpec.MODALITY_TEXT},
        encodings=[model_pb2.ENCODING_UINT8, model_pb2.ENCODING_PNG],
        limits={"max_text_bytes": max_text_bytes},
        conditions=[model_pb2.CONDITION_KIND_PREFIX],
        prefix_unit=1,
    )
