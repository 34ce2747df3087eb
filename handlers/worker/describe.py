"""Descriptions: a card and what a worker made of it, as the gateway's catalog wants them.

Enters: a card, a state and its reason. Leaves: a fount.v1.Model for clients and the Description around it.
"""

from __future__ import annotations

from fount.v1 import model_pb2
from handlers.cards.card import Card, Quality

__all__ = ["card_to_proto"]


def card_to_proto(card: Card, model_digest: str, reason: str) -> model_pb2.Model:
    """Turn a card into the public message.

    Args:
        card: the card.
        model_digest: what was loaded; "" when nothing was.
        reason: why it cannot be served; "" when it can.
    """
    return model_pb2.Model(
        ref=model_pb2.ModelRef(name=card.name, version=card.version, digest=model_digest),
        state=model_pb2.Model.STATE_UNAVAILABLE if reason else model_pb2.Model.STATE_READY,
        state_reason=reason,
        family=card.family.name,
        description=card.description,
        operations=[model_pb2.Operation.Value(f"OPERATION_{name}") for name in card.operations],
        condition=_condition(card),
        sample_spec=_sample_spec(card),
        parameters=_parameters(card),
        encodings=[model_pb2.Encoding.Value(f"ENCODING_{name}") for name in card.encodings],
        limits=model_pb2.Limits(max_count=card.limits.max_count, max_labels=card.limits.max_labels),
        quality=[_quality(quality) for quality in card.quality],
        intended_use=card.intended_use,
        data_licence=card.data_licence,
        recipe=_recipe(card),
        value_range=model_pb2.ValueRange(min=card.sample.value_range[0], max=card.sample.value_range[1]),
    )


def _condition(card: Card) -> model_pb2.ConditionSchema | None:
    if not card.classes:
        return None
    labels = [model_pb2.Label(id=i, name=name) for i, name in enumerate(card.classes)]
    return model_pb2.ConditionSchema(labels=labels, prior=card.prior)


def _sample_spec(card: Card) -> model_pb2.SampleSpec:
    """Describe the default encoding: UINT8, height, width, channels."""
    return model_pb2.SampleSpec(
        modality=model_pb2.SampleSpec.MODALITY_IMAGE,
        dtype=model_pb2.DTYPE_UINT8,
        dims=[card.sample.height, card.sample.width, card.sample.channels],
        layout=model_pb2.SampleSpec.LAYOUT_HWC,
        value_range=model_pb2.ValueRange(min=0, max=255),
        encoding=model_pb2.ENCODING_UINT8,
    )


def _parameters(card: Card) -> list[model_pb2.ParameterSpec]:
    return [
        model_pb2.ParameterSpec(
            name=name,
            range=model_pb2.ValueRange(min=parameter.min, max=parameter.max),
            default_value=parameter.default,
            description=parameter.description,
        )
        for name, parameter in card.parameters.items()
    ]


def _quality(quality: Quality) -> model_pb2.Quality:
    low, high = quality.interval
    return model_pb2.Quality(
        metric=quality.metric,
        value=quality.value,
        interval=model_pb2.ValueRange(min=low, max=high),
        real_value=quality.real_value,
        method=quality.method,
    )


def _recipe(card: Card) -> str:
    recipe = card.recipe
    if recipe is None:
        return ""
    return f"{recipe.name}, seed {recipe.seed}, {recipe.steps} steps, data {recipe.data} {recipe.data_digest}"
