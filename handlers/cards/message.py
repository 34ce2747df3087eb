"""Convert a card to fount.v1.Model: the description that a worker sends, and that an archive contains for gateways."""

from __future__ import annotations

from fount.v1 import model_pb2
from handlers.cards.card import Card, Sample

__all__ = ["card_to_proto"]

_LAYOUTS = {
    "image": model_pb2.SampleSpec.LAYOUT_HWC,
    "vector": model_pb2.SampleSpec.LAYOUT_C,
    "text": model_pb2.SampleSpec.LAYOUT_T,
}


def card_to_proto(card: Card, model_digest: str, reason: str) -> model_pb2.Model:
    """Convert a card to the public message.

    Args:
        card: the card.
        model_digest: of the loaded model; "" if none is loaded.
        reason: why the model is unavailable; "" if it is ready.
    """
    sample, recipe = card.sample, card.recipe
    value_range = model_pb2.ValueRange(min=sample.value_range[0], max=sample.value_range[1])
    model = model_pb2.Model(
        ref=model_pb2.ModelRef(name=card.name, version=card.version, digest=model_digest),
        state=model_pb2.Model.STATE_UNAVAILABLE if reason else model_pb2.Model.STATE_READY,
        state_reason=reason,
        family=card.family.name,
        description=card.description,
        operations=[model_pb2.Operation.Value(f"OPERATION_{name}") for name in card.operations],
        sample_spec=_sample_spec(sample, value_range),
        parameters=[
            model_pb2.ParameterSpec(
                name=name,
                range=model_pb2.ValueRange(min=parameter.min, max=parameter.max),
                default_value=parameter.default,
                description=parameter.description,
            )
            for name, parameter in card.parameters.items()
        ],
        encodings=[model_pb2.Encoding.Value(f"ENCODING_{name}") for name in card.encodings],
        limits=model_pb2.Limits(
            max_count=card.limits.max_count,
            max_labels=card.limits.max_labels,
            max_text_bytes=(sample.length or 0) if sample.modality == "text" else 0,
        ),
        quality=[
            model_pb2.Quality(
                metric=quality.metric,
                value=quality.value,
                interval=model_pb2.ValueRange(min=quality.interval[0], max=quality.interval[1]),
                real_value=quality.real_value,
                method=quality.method,
            )
            for quality in card.quality
        ],
        intended_use=card.intended_use,
        data_licence=card.data_licence,
        value_range=value_range,
        latent_dim=card.latent_dim or 0,
        latent_spread=card.latent_spread if card.latent_dim else 0,
        draw_steps=card.draw_steps,
        score_columns=[
            model_pb2.ScoreColumn(
                name=column.name,
                unit=column.unit,
                kind=model_pb2.ScoreColumn.Kind.Value(f"KIND_{column.kind}"),
                description=column.description,
            )
            for column in card.score_columns
        ],
        directions=[
            model_pb2.Direction(name=each.name, description=each.description, vector=each.vector)
            for each in card.directions
        ],
        conditions=[model_pb2.ConditionKind.Value(f"CONDITION_KIND_{name}") for name in card.conditions],
        prefix_unit=card.prefix_unit if "PREFIX" in card.conditions else 0,
    )
    if card.classes:
        labels = [model_pb2.Label(id=i, name=name) for i, name in enumerate(card.classes)]
        model.condition.CopyFrom(model_pb2.ConditionSchema(labels=labels, prior=card.prior))
    if "TRANSLATE" in card.operations:
        model.input_spec.CopyFrom(model.sample_spec)
        model.input_spec.dims[:] = card.input_shape
    if recipe is not None:
        origin = f"{recipe.name}, seed {recipe.seed}, {recipe.steps} steps"
        model.recipe = f"{origin}, data {recipe.data} {recipe.data_digest}"
    return model


def _sample_spec(sample: Sample, value_range: model_pb2.ValueRange) -> model_pb2.SampleSpec:
    """Describe a sample in the default encoding."""
    spec = model_pb2.SampleSpec(
        modality=model_pb2.SampleSpec.Modality.Value(f"MODALITY_{sample.modality.upper()}"),
        dtype=model_pb2.DTYPE_UINT8,
        dims=[-1] if sample.modality == "text" else sample.shape,
        layout=_LAYOUTS[sample.modality],
        value_range=model_pb2.ValueRange(min=0, max=255),
        encoding=model_pb2.ENCODING_UINT8,
    )
    if sample.modality == "vector":
        spec.dtype, spec.encoding = model_pb2.DTYPE_FLOAT32, model_pb2.ENCODING_FLOAT32
        spec.value_range.CopyFrom(value_range)
    return spec
