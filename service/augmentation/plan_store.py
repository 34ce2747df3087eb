"""Where plans are kept, so that GetPlan and ListPlans find them: in memory, or in a folder that gateways may share.

A plan is kept for its caller until it expires. Pulling needs no store: a ticket holds all that its rows are made from.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import logging
import os
import secrets
import threading
import time
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from fount.v1 import augmentation_pb2
from service.errors import SetupError

__all__ = ["FolderPlans", "MemoryPlans", "Plans", "page", "plans_at"]

_log = logging.getLogger(__name__)

_MOST_EACH, _MOST = 1000, 10_000
_DIGEST_BYTES = 32
_PAGE_BYTES = 1 << 20  # of plans in one answer: a message holds them all

Plan = augmentation_pb2.Plan


class Plans(Protocol):
    """Keeps plans; thread-safe. Expired ones are never returned."""

    def put(self, subject: str, plan: Plan) -> None:
        """Keep a plan, in place of one with its id; the oldest go when there are too many."""
        ...

    def get(self, subject: str, plan_id: str) -> Plan | None:
        """A caller's plan."""
        ...

    def list(self, subject: str) -> list[Plan]:
        """A caller's plans, newest first."""
        ...


class MemoryPlans:
    """Plans that end with this process.

    Args:
        most_each: plans of one caller.
        most: plans of all callers.
    """

    def __init__(self, most_each: int = _MOST_EACH, most: int = _MOST) -> None:
        self._most_each, self._most = most_each, most
        self._plans: dict[tuple[str, str], Plan] = {}  # oldest first
        self._lock = threading.Lock()

    def put(self, subject: str, plan: Plan) -> None:
        """See `Plans`."""
        with self._lock:
            self._plans.pop((subject, plan.id), None)
            self._plans[subject, plan.id] = plan
            self._drop_expired()
            mine = [key for key in self._plans if key[0] == subject]
            for key in mine[: max(0, len(mine) - self._most_each)]:
                del self._plans[key]
            for key in list(self._plans)[: max(0, len(self._plans) - self._most)]:
                del self._plans[key]

    def get(self, subject: str, plan_id: str) -> Plan | None:
        """See `Plans`."""
        with self._lock:
            plan = self._plans.get((subject, plan_id))
        return None if plan is None or _is_expired(plan) else plan

    def list(self, subject: str) -> list[Plan]:
        """See `Plans`."""
        with self._lock:
            plans = [plan for key, plan in self._plans.items() if key[0] == subject and not _is_expired(plan)]
        return sorted(plans, key=_age)

    def _drop_expired(self) -> None:
        for key in [key for key, plan in self._plans.items() if _is_expired(plan)]:
            del self._plans[key]


class FolderPlans:
    """Plans in a folder: a folder each caller, a file each plan, written whole or not at all.

    Args:
        folder: made if it is not there.
        most_each: plans of one caller.
        most: plans of all callers.

    Raises:
        SetupError: the folder cannot be written.
    """

    def __init__(self, folder: Path, most_each: int = _MOST_EACH, most: int = _MOST) -> None:
        self._folder, self._most_each, self._most = folder, most_each, most
        self._read: dict[Path, tuple[int, Plan | None]] = {}  # by when the file was written
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SetupError(f"plans cannot be kept in {folder}: {error}; name another folder with --plans") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SetupError(
                f"plans cannot be kept in {folder}: it may not be written; name another folder with --plans"
            )

    def put(self, subject: str, plan: Plan) -> None:
        """See `Plans`. A plan that cannot be written is logged, and not kept: its ticket is good all the same."""
        content = plan.SerializeToString(deterministic=True)
        path = self._path(subject, plan.id)
        half = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            half.write_bytes(hashlib.sha256(content).digest() + content)
            half.replace(path)
        except OSError as error:
            _log.warning("plan %s could not be kept: %s", plan.id, error)
            half.unlink(missing_ok=True)
        with self._lock:
            self._tidy(path.parent)

    def get(self, subject: str, plan_id: str) -> Plan | None:
        """See `Plans`."""
        if not plan_id.isalnum():  # ids are hexadecimal; nothing else is to reach a path
            return None
        with self._lock:
            plan = self._load(self._path(subject, plan_id))
        return None if plan is None or _is_expired(plan) else plan

    def list(self, subject: str) -> list[Plan]:
        """See `Plans`."""
        with self._lock:
            plans = [self._load(path) for path in self._path(subject, "").parent.glob("*.plan")]
        return sorted((plan for plan in plans if plan is not None and not _is_expired(plan)), key=_age)

    def _path(self, subject: str, plan_id: str) -> Path:
        return self._folder / hashlib.sha256(subject.encode()).hexdigest()[:32] / f"{plan_id}.plan"

    def _load(self, path: Path) -> Plan | None:
        """Read a file, or what was read of it before; None, logged once, when it is damaged."""
        try:
            written = path.stat().st_mtime_ns
            known = self._read.get(path)
            if known is None or known[0] != written:
                known = self._read[path] = (written, _parse(path.read_bytes()))
                if known[1] is None:
                    _log.warning("%s is not a plan, or only part of one; it is left out", path)
        except OSError:
            self._read.pop(path, None)
            return None
        return known[1]

    def _tidy(self, own: Path) -> None:
        """Remove expired plans, and the oldest where there are too many."""
        kept = {path: plan for path in self._folder.glob("*/*.plan") if (plan := self._load(path))}
        gone = {path for path, plan in kept.items() if _is_expired(plan)}
        newest = sorted((path for path in kept if path not in gone), key=lambda path: _age(kept[path]))
        gone |= set([path for path in newest if path.parent == own][self._most_each :])
        gone |= set([path for path in newest if path not in gone][self._most :])
        for path in gone:
            self._read.pop(path, None)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def plans_at(folder: Path | None) -> Plans:
    """Plans in a folder, or in memory when there is none."""
    return MemoryPlans() if folder is None else FolderPlans(folder)


def page(plans: list[Plan], size: int, token: str, most_bytes: int = _PAGE_BYTES) -> tuple[list[Plan], str]:
    """Cut one page from plans, newest first; a token tells the last plan of the page before.

    It ends before `size` plans where they come to more than `most_bytes`, but holds one however large.

    Raises:
        ValueError: the token is not one of these.
    """
    after: tuple[int, str] | None = None
    if token:
        try:
            age, _, plan_id = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode().partition(" ")
            after = (int(age), plan_id)
        except (binascii.Error, UnicodeDecodeError, ValueError) as error:
            raise ValueError("is not one this gateway gave") from error
    left = [plan for plan in plans if after is None or _age(plan) > after]
    ends = accumulate(each.ByteSize() for each in left[:size])
    fitting = max(1, sum(end <= most_bytes for end in ends))
    if len(left) <= fitting:
        return left, ""
    age_of_last, last_id = _age(left[fitting - 1])
    return left[:fitting], base64.urlsafe_b64encode(f"{age_of_last} {last_id}".encode()).decode()


def _age(plan: Plan) -> tuple[int, str]:
    """Sorts newest first; the id decides between equals."""
    return -plan.create_time.ToNanoseconds(), plan.id


def _is_expired(plan: Plan) -> bool:
    return time.time() >= plan.expire_time.ToNanoseconds() / 1e9


def _parse(content: bytes) -> Plan | None:
    digest, message = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(message).digest() != digest:
        return None
    try:
        return Plan.FromString(message)
    except DecodeError:
        return None
