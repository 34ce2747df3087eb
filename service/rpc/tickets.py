"""Tickets: everything the rows of a plan depend on, signed, so that any gateway with the key can make the rows.

A `fount.ticket.v1.TicketPayload` and keys enter; opaque bytes leave, and the other way round. The signature is
HMAC-SHA256 over a fixed prefix, the id of the key and the serialized payload, compared in constant time.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from fount.files import atomic_write, make_private_file, open_regular
from fount.ticket.v1 import ticket_pb2
from fount.v1 import augmentation_pb2
from service.errors import NotPermitted, SetupError, TicketInvalid

__all__ = ["LAYOUT_VERSION", "MAX_TICKET_BYTES", "TicketKeys", "open_ticket", "plan_id", "sign"]

LAYOUT_VERSION = 3
"""Version of the way from a specification to its slots and rows; another way needs another version.

2: the copy filter counts equal training rows once, and leaves leaked rows out. 3: sources that version 2 does not know,
translated and reconstructed rows, so that a gateway of before refuses such a ticket; all other rows are those of 2.
"""

_READ_VERSIONS = (2, 3)

MAX_TICKET_BYTES = 64 << 10

_log = logging.getLogger(__name__)
_PREFIX = b"fount.ticket.v1\0"
_ID_DIGITS = 24
_KEY_BYTES = 32
_LINE = re.compile(r"(?P<id>[A-Za-z0-9._-]{1,64}):(?P<key>[0-9a-fA-F]{64})")


def plan_id(payload: ticket_pb2.TicketPayload) -> str:
    """Compute the id of a plan: a digest of what its rows are made from, so that equal plans have equal ids."""
    request = augmentation_pb2.PlanDatasetRequest()
    request.CopyFrom(payload.request)
    request.ClearField("time_to_live")
    digest = hashlib.sha256(payload.dataset_digest.encode())
    for part in (request, *payload.models):
        content = part.SerializeToString(deterministic=True)
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:_ID_DIGITS]


def sign(payload: ticket_pb2.TicketPayload, keys: TicketKeys) -> bytes:
    """Make a ticket."""
    key_id, key = keys.signing
    content = payload.SerializeToString(deterministic=True)
    ticket = ticket_pb2.Ticket(key_id=key_id, payload=content, mac=_mac(key_id, key, content))
    return ticket.SerializeToString(deterministic=True)


def open_ticket(
    ticket: bytes, keys: TicketKeys, subject: str, *, now_unix_s: float | None = None
) -> ticket_pb2.TicketPayload:
    """Check a ticket that a caller, `subject`, sent at a time (None: now), and read it.

    Raises:
        TicketInvalid: it is not a ticket, was changed, has expired, or is of an unknown key or another release.
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
        raise TicketInvalid("was changed after it was signed; send it as PlanDataset returned it")
    payload = ticket_pb2.TicketPayload.FromString(outer.payload)
    if payload.layout_version not in _READ_VERSIONS:
        raise TicketInvalid("was made by another release, which would make other rows; plan again")
    now = time.time() if now_unix_s is None else now_unix_s
    if now >= payload.expire_unix_s:
        raise TicketInvalid(f"expired {now - payload.expire_unix_s:.0f} s ago; plan again")
    if payload.subject != subject:
        raise NotPermitted(f"the ticket was made for another caller than {subject}; plan for yourself")
    return payload


def _mac(key_id: str, key: bytes, content: bytes) -> bytes:
    name = key_id.encode()
    return hmac.new(key, _PREFIX + len(name).to_bytes(2, "big") + name + content, hashlib.sha256).digest()


@dataclass(frozen=True, kw_only=True)
class TicketKeys:
    """The keys that tickets are signed with, from a file that gateways share, or of one process alone.

    A file holds one `id:key` a line, the key in 64 hexadecimal digits; `#` starts a comment. The first key signs, all
    verify: put a new key first, and remove the old one when its last ticket has expired.

    Attributes:
        keys: 32 bytes each by id, at least one.
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
        """Read a file, which is created with one new key if it does not exist; None: keys that end with this process.

        Raises:
            SetupError: it cannot be read or created, or a line is wrong; names the line and never shows a key.
        """
        if path is None:
            return cls(keys={f"process-{secrets.token_hex(4)}": secrets.token_bytes(_KEY_BYTES)}, are_lasting=False)
        try:
            if not path.exists():
                _create(path)
            with open_regular(path) as stream:
                text = stream.read().decode()
            if wrong := make_private_file(path):
                _log.warning("ticket keys: %s, so others can make tickets: chmod 600", wrong)
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


def _create(path: Path) -> None:
    """Write a file with one new key; of two gateways that start together, both use the file of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = f"key-{secrets.token_hex(4)}:{secrets.token_hex(_KEY_BYTES)}\n"
    with contextlib.suppress(FileExistsError):
        atomic_write(path, content.encode(), mode=0o600, overwrite=False)
