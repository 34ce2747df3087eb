"""The keys tickets are signed with: a file that gateways share, or a key of one process alone.

A file holds one `id:key` a line, the key in 64 hexadecimal digits. The first signs, all verify: a new key is put first,
and the old one is taken out when its last ticket has expired. `#` begins a comment.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import SetupError

__all__ = ["TicketKeys"]

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
