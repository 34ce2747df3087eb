"""Message fields that several requests and responses have, read to plain values and written from them."""

from __future__ import annotations

from typing import cast

from fount.v1 import model_pb2, sampling_pb2
from service.domain import ModelKey

__all__ = ["label_value", "parameter_values", "read_reference", "reference_to_message"]


def parameter_values(message: sampling_pb2.Parameters) -> dict[str, float]:
    """Return the parameters that are set, by name."""
    return {field.name: value for field, value in message.ListFields()}


def label_value(message: sampling_pb2.LabelRef) -> int | str | None:
    """Return the id or the name of a label; None when neither is set."""
    kind = message.WhichOneof("kind")
    return None if kind is None else cast("int | str", getattr(message, kind))


def read_reference(message: model_pb2.ModelRef) -> ModelKey:
    """Read a reference to a model; its version and digest may be empty."""
    return ModelKey(name=message.name, version=message.version, digest=message.digest)


def reference_to_message(key: ModelKey) -> model_pb2.ModelRef:
    """Write a reference to a served model."""
    return model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest)
