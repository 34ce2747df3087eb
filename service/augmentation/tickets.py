"""Tickets: what a plan was made from, signed, so that any gateway with the key can make its rows.

A `TicketPayload` enters with keys; opaque bytes leave, and the other way round. The mark is HMAC-SHA256 over a fixed
prefix, the key's id and the payload as it was serialized, compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from fount.ticket.v1 import ticket_pb2
from service.errors import NotPermitted, SetupError, TicketInvalid

__all__ = ["LAYOUT_VERSION", "MAX_TICKET_BYTES", "TicketKeys", "open_ticket", "sign"]


LAYOUT_VERSION = 1
"""Of the way from a resolved request to its slots and rows: another way, another version."""

MAX_TICKET_BYTES = 64 << 10

_PREFIX = b"fount.ticket.v1\0"


def sign(payload: ticket_pb2.TicketPayload, keys: TicketKeys) -> bytes:
    """Make a ticket."""
    key_id, key = keys.signing
    content = payload.SerializeToString(deterministic=True)
    ticket = ticket_pb2.Ticket(key_id=key_id, payload=content, mac=_mac(key_id, key, content))
    return ticket.SerializeToString(deterministic=True)


def open_ticket(
    ticket: bytes, keys: TicketKeys, subject: str, *, now_unix_s: float | None = None
) -> ticket_pb2.TicketPayload:
    """Check a ticket and read it.

    Args:
        ticket: as a client sent it.
        keys: of this gateway.
        subject: who brings it.
        now_unix_s: for tests; the clock's otherwise.

    Raises:
        TicketInvalid: it is none, was changed, has expired, or is of an unknown key or another release.
        NotPermitted: it is another caller's.
    """
    if not ticket or len(ticket) > MAX_TICKET_BYTES:
        raise TicketInvalid(f"must hold 1 to {MAX_TICKET_BYTES} bytes, got {len(ticket)}; PlanDataset returns one")
    try:
        outer = ticket_pb2.Ticket.FromString(ticket)
    except DecodeError as error:
        raise TicketInvalid("cannot be read; PlanDataset returns tickets") from error
    key = keys.keys.get(outer.key_id)
    if key is None:
        raise TicketInvalid(
            f"was signed with the key {outer.key_id[:80]!r}, which this gateway does not have; plan again"
        )
    if not hmac.compare_digest(_mac(outer.key_id, key, outer.payload), outer.mac):
        raise TicketInvalid("was changed after it was signed; take it as PlanDataset returned it")
    payload = ticket_pb2.TicketPayload.FromString(outer.payload)
    if payload.layout_version != LAYOUT_VERSION:
        raise TicketInvalid("was made by another release, whose rows would be others; plan again")
    now = time.time() if now_unix_s is None else now_unix_s
    if now >= payload.expire_unix_s:
        raise TicketInvalid(f"expired {now - payload.expire_unix_s:.0f} s ago; plan again")
    if payload.subject != subject:
        raise NotPermitted(f"the ticket was made for another caller than {subject}; plan for yourself")
    return payload


def _mac(key_id: str, key: bytes, content: bytes) -> bytes:
    name = key_id.encode()
    return hmac.new(key, _PREFIX + len(name).to_bytes(2, "big") + name + content, hashlib.sha256).digest()


# FOLDED FROM service.augmentation.tickets:
# The keys tickets are signed with: a file that gateways share, or a key of one process alone. A file holds one
# `id:key` a line, the key in 64 hexadecimal digits. The first signs, all verify: a new key is put first, and
# the old one is taken out when its last ticket has expired. `#` begins a comment.


_log = logging.getLogger(__name__)

_KEY_BYTES = 32
_LINE = re.compile(r"(?P<id>[A-Za-z0-9._-]{1,64}):(?P<key>[0-9a-fA-F]{64})")


@dataclass(frozen=True, kw_only=True)
class TicketKeys:
    """Keys by id; the first signs.

    Attributes:
        keys: 32 bytes each, at least one.
        are_lasting: whether they outlive this process.
    """

    keys: dict[str, bytes] = field(repr=False)
    are_lasting: bool = True

    @property
    def signing(self) -> tuple[str, bytes]:
        """The id and key that sign."""
        return next(iter(self.keys.items()))

    @classmethod
    def at(cls, path: Path | None) -> TicketKeys:
        """Those of a file, or of this process when there is none."""
        return cls.of_process() if path is None else cls.of_file(path)

    @classmethod
    def of_process(cls) -> TicketKeys:
        """A key that ends with this process."""
        return cls(keys={f"process-{secrets.token_hex(4)}": secrets.token_bytes(_KEY_BYTES)}, are_lasting=False)

    @classmethod
    def of_file(cls, path: Path) -> TicketKeys:
        """Read a file; made with one new key, readable by its owner alone, if it is not there.

        Raises:
            SetupError: it cannot be read or made, or a line is wrong; names the line and never shows a key.
        """
        try:
            if not path.exists():
                _make(path)
            text = path.read_text()
            if path.stat().st_mode & 0o077:
                _log.warning("ticket keys %s can be read by others; whoever has them can make tickets: chmod 600", path)
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(
                f"ticket keys {path} cannot be read: {error}; name another file with --ticket-keys, or another folder "
                "with --state-dir"
            ) from error
        return cls(keys=_parse(text, path))


def _parse(text: str, path: Path) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise SetupError(f"ticket keys {path}, line {number}: is not an id, a colon and 64 hexadecimal digits")
        if match["id"] in keys:
            raise SetupError(f"ticket keys {path}, line {number}: the id {match['id']!r} is there a second time")
        keys[match["id"]] = bytes.fromhex(match["key"])
    if not keys:
        raise SetupError(f"ticket keys {path}: holds no key; delete it to have one made")
    return keys


def _make(path: Path) -> None:
    """Write a file with one key, whole or not at all; of two gateways that begin together, one wins for both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"key-{secrets.token_hex(4)}:{secrets.token_hex(_KEY_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(half, path)
    except FileExistsError:
        return
    finally:
        half.unlink(missing_ok=True)
