"""Parse request messages: sizes are checked before a handler looks at any field.

The bytes of a client enter; a message leaves, or the error with which the call ends. It is returned and not raised,
since gRPC answers an exception of a deserializer itself: without details, not counted, with a traceback in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from service.errors import InvalidRequest, Violation
from service.rpc.fields import Violations

__all__ = ["MAX_ENTRIES", "MAX_TEXT", "request_parser"]

MAX_ENTRIES = 4096
"""Entries of a list in a request; lists of numbers are as long as the arrays they belong to."""

MAX_TEXT = 4096
"""Characters of a text in a request."""

_MAX_BYTES = 256 << 10  # of a request: more entries than that would take long to parse
_ARRAY_METHODS = frozenset({  # whose requests hold arrays: labels, or pixels
    "/fount.v1.SamplingService/Sample",
    "/fount.v1.SamplingService/SampleOnce",
    "/fount.v1.AugmentationService/Augment",
    "/fount.runner.v1.ReadingService/Read",
})  # fmt: skip


def request_parser(path: str, parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | InvalidRequest]:
    """Make the deserializer of the method at `path`; gRPC limits requests with arrays."""
    name = path.rpartition("/")[2]
    most_bytes = None if path in _ARRAY_METHODS else _MAX_BYTES

    def parse_request(data: bytes) -> Message | InvalidRequest:
        if most_bytes is not None and len(data) > most_bytes:
            return _refusal(f"a request of {name} has at most {most_bytes} bytes, got {len(data)}; shorten its lists")
        try:
            message = parse(data)
        except DecodeError as error:
            return _refusal(f"the request of {name} cannot be read: {error}; write it as the protos say")
        if len(data) <= min(MAX_ENTRIES, MAX_TEXT):  # every entry and every character takes a byte
            return message
        wrong = Violations()
        _check_sizes(message, "", wrong)
        return InvalidRequest(tuple(wrong)) if wrong else message

    return parse_request


def _refusal(description: str) -> InvalidRequest:
    return InvalidRequest((Violation(field="", description=description),))


def _check_sizes(message: Message, prefix: str, wrong: Violations) -> None:
    """Append the lists and texts that are too long, the lengths of lists first; no entry of such a list is read."""
    for field in _sized_fields(message.DESCRIPTOR):
        path, value = f"{prefix}{field.name}", getattr(message, field.name)
        is_message, is_text = field.message_type is not None, field.type == FieldDescriptor.TYPE_STRING
        if not field.is_repeated:
            if is_text:
                _check_text(value, path, wrong)
            elif message.HasField(field.name):
                _check_sizes(value, f"{path}.", wrong)
        elif len(value) > MAX_ENTRIES:
            wrong.add(path, f"must hold at most {MAX_ENTRIES} entries, got {len(value)}")
        elif is_message or is_text:
            for place, entry in enumerate(value):
                if is_text:
                    _check_text(entry, f"{path}[{place}]", wrong)
                else:
                    _check_sizes(entry, f"{path}[{place}].", wrong)


def _check_text(text: str, path: str, wrong: Violations) -> None:
    if len(text) > MAX_TEXT:
        wrong.add(path, f"must have at most {MAX_TEXT} characters, got {len(text)}")


@cache
def _sized_fields(message: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Return the fields that are texts, messages, or lists of anything but numbers."""
    sized = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
    return tuple(
        each
        for each in message.fields
        if each.type in sized or (each.is_repeated and each.type == FieldDescriptor.TYPE_ENUM)
    )
