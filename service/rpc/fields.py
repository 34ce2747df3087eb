"""Message fields that several requests have, as plain values for `service.validation`."""

from __future__ import annotations

from typing import cast

from fount.v1 import sampling_pb2

__all__ = ["label_value", "parameter_values"]


def parameter_values(message: sampling_pb2.Parameters) -> dict[str, float]:
    """Return the parameters that are set, by name."""
    return {field.name: value for field, value in message.ListFields()}


def label_value(message: sampling_pb2.LabelRef) -> int | str | None:
    """Return the id or the name of a label; None when neither is set."""
    kind = message.WhichOneof("kind")
    return None if kind is None else cast("int | str", getattr(message, kind))
