"""Tickets: what a plan was made from, signed, so that any gateway with the key can make its rows.

A `TicketPayload` enters with keys; opaque bytes leave, and the other way round. The mark is HMAC-SHA256 over a fixed
prefix, the key's id and the payload as it was serialized, compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from google.protobuf.message import DecodeError

from fount.ticket.v1 import ticket_pb2
from service.augmentation.ticket_keys import TicketKeys
from service.errors import NotPermitted, TicketInvalid

__all__ = ["LAYOUT_VERSION", "MAX_TICKET_BYTES", "open_ticket", "sign"]

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
