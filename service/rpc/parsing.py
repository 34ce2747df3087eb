"""Parse request messages: sizes are checked before a handler looks at any field.

The bytes of a client enter; a message leaves, or the error with which the call ends. It is returned and not raised,
since gRPC answers an exception of a deserializer itself: without details, not counted, with a traceback in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from service.errors import InvalidRequest, Violation
from service.rpc.fields import Violations

__all__ = ["request_parser"]

_MAX_ENTRIES = 4096  # of a list; lists of numbers are as long as what they belong to
_MAX_TEXT = 4096  # characters
_MAX_BYTES = 256 << 10  # apart from one array; parsing millions of empty entries would take long
_MAX_FIELDS = 100  # in a message, when all of them are longer than that

_MAX_VARINT = 10  # bytes
_STRING, _ENUM, _MESSAGE = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_MESSAGE
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED = {1: 8, 5: 4}  # bytes by wire type


def request_parser(method: str, parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | InvalidRequest]:
    """Make the deserializer of a method from its plain one."""
    descriptor = cast(Descriptor, parse(b"").DESCRIPTOR)

    def parse_request(data: bytes) -> Message | InvalidRequest:
        try:
            if len(data) > _MAX_BYTES and (field := _find_oversized(data, descriptor)):
                size = f"apart from pixels and labels, a request has at most {_MAX_BYTES} bytes, got {len(data)}"
                return _refusal(field, f"{size}; shorten this field")
            message = parse(data)
        except (DecodeError, _Malformed) as error:
            return _refusal("", f"the request of {method} cannot be read: {error}; write it as the protos say")
        if len(data) <= min(_MAX_ENTRIES, _MAX_TEXT):  # every entry and every character takes a byte
            return message
        wrong = Violations()
        _check_sizes(message, "", wrong)
        return InvalidRequest(tuple(wrong)) if wrong else message

    return parse_request


def _refusal(field: str, description: str) -> InvalidRequest:
    return InvalidRequest((Violation(field=field, description=description),))


# --- Before a message is parsed ---------------------------------------------------------------------------------------


class _Malformed(Exception):
    """Bytes are no message."""


def _find_oversized(data: bytes, message: Descriptor) -> str:
    """Return the path of the field that makes an encoded message too long; empty: only arrays do.

    Reads the start of each level, and goes down the longest field.

    Raises:
        _Malformed: it is no message.
    """
    path, first, last = "", 0, len(data)
    while last - first > _MAX_BYTES:
        found = list(islice(_encoded_fields(data, first, last), _MAX_FIELDS + 1))
        if len(found) > _MAX_FIELDS:  # the entries of a list, each as a field of its own
            number = found[-1][0]
            entry = message.fields_by_number.get(number)
            return "" if entry and _is_array(entry) else path + (entry.name if entry else str(number))
        known = [
            (message.fields_by_number[each[0]], *each[1:]) for each in found if each[0] in message.fields_by_number
        ]
        others = [each for each in known if not _is_array(each[0])]
        size = sum(end - start for _, start, end in others)
        if size <= _MAX_BYTES:
            return ""
        field, first, last = max(others, key=lambda each: each[2] - each[1])
        path += field.name
        if field.message_type is None or size - (last - first) > _MAX_BYTES:
            return path
        path, message = f"{path}.", field.message_type
    return ""


def _encoded_fields(data: bytes, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, start and end of each field of an encoded message.

    Source: protobuf's encoding, https://protobuf.dev/programming-guides/encoding/
    """
    while first < last:
        tag, first = _read_varint(data, first)
        start = first
        if tag & 7 == _LENGTH_DELIMITED:
            length, start = _read_varint(data, first)
            first = start + length
        elif tag & 7 == _VARINT:
            _, first = _read_varint(data, first)
        elif tag & 7 in _FIXED:
            first += _FIXED[tag & 7]
        else:
            raise _Malformed(f"wire type {tag & 7} is not one of proto3")
        if first > last:
            raise _Malformed("a field is longer than its message")
        yield tag >> 3, start, first


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number and the place after it."""
    value = 0
    for number, byte in enumerate(data[place : place + _MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value, place + number + 1
    raise _Malformed("a number has no end")


def _is_array(field: FieldDescriptor) -> bool:
    """Whether a field is parsed as one piece: bytes, or a list of numbers."""
    numbers = field.is_repeated and field.message_type is None and field.type not in (_STRING, _ENUM)
    return field.type == FieldDescriptor.TYPE_BYTES or numbers


# --- Afterwards -------------------------------------------------------------------------------------------------------


def _check_sizes(message: Message, prefix: str, wrong: Violations) -> None:
    """Append the lists and texts that are too long, the lengths of lists first; no entry of such a list is read."""
    for field in _sized_fields(message.DESCRIPTOR):
        path, value = f"{prefix}{field.name}", getattr(message, field.name)
        is_message, is_text = field.message_type is not None, field.type == _STRING
        if not field.is_repeated:
            if is_text:
                _check_text(value, path, wrong)
            elif message.HasField(field.name):
                _check_sizes(value, f"{path}.", wrong)
        elif len(value) > _MAX_ENTRIES:
            wrong.add(path, f"must hold at most {_MAX_ENTRIES} entries, got {len(value)}")
        elif is_message or is_text:
            for place, entry in enumerate(value):
                if is_text:
                    _check_text(entry, f"{path}[{place}]", wrong)
                else:
                    _check_sizes(entry, f"{path}[{place}].", wrong)


def _check_text(text: str, path: str, wrong: Violations) -> None:
    if len(text) > _MAX_TEXT:
        wrong.add(path, f"must have at most {_MAX_TEXT} characters, got {len(text)}")


@cache
def _sized_fields(message: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Return the fields that are texts, messages, or lists of anything but numbers."""
    kinds = (_STRING, _MESSAGE)
    return tuple(each for each in message.fields if each.type in kinds or (each.is_repeated and each.type == _ENUM))
