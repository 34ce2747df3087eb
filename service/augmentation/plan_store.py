"""Keep plans so that GetPlan and ListPlans find them: in memory, or in a folder that gateways may share.

A plan is kept for its caller until it expires, as the bytes that its caller gets. Pulling needs no store: a ticket
holds everything that its rows are made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fount.files import atomic_write
from service.errors import SetupError

__all__ = ["FolderPlanStore", "PlanStore", "StoredPlan", "plan_store_at"]

_log = logging.getLogger(__name__)

_MOST_EACH, _MOST = 1000, 10_000
_FORMAT = b"fount.plan.1"  # part of the digest: a file of another format is refused as damaged
_DIGEST_BYTES = 32
_TIMES = struct.Struct(">qq")  # created and expires
_SUFFIX = ".plan"

_Key = tuple[str, str]
"""A digest of the caller's name, and the plan's id."""


@dataclass(frozen=True, kw_only=True)
class StoredPlan:
    """A plan as it is kept.

    Attributes:
        id: of the plan.
        created_ns, expires_ns: when it was made and when it ends, since 1970.
        content: the plan, serialized; opaque here.
    """

    id: str
    created_ns: int
    expires_ns: int
    content: bytes

    @property
    def age(self) -> tuple[int, str]:
        """Sorts newest first; the id decides between equals."""
        return -self.created_ns, self.id

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return time.time_ns() >= self.expires_ns


class PlanStore:
    """Plans in memory, which end with this process. Thread-safe. Expired plans are never returned.

    Args:
        most_each: most plans of one caller; the oldest are dropped.
        most: most plans of all callers.
    """

    def __init__(self, most_each: int = _MOST_EACH, most: int = _MOST) -> None:
        self._most_each, self._most = most_each, most
        self._plans: dict[_Key, StoredPlan] = {}
        self._lock = threading.Lock()

    def put(self, subject: str, plan: StoredPlan) -> None:
        """Keep a plan, in place of one of the same id."""
        owner = _owner(subject)
        with self._lock:
            self._save((owner, plan.id), plan)
            for key in self._surplus(self._load_all("*"), owner):
                self._remove(key)

    def get(self, subject: str, plan_id: str) -> StoredPlan | None:
        """Return a plan of a caller; None when there is none of the id."""
        with self._lock:
            plan = self._load((_owner(subject), plan_id))
        return None if plan is None or plan.is_expired else plan

    def plans_of(self, subject: str) -> list[StoredPlan]:
        """Return the plans of a caller, newest first."""
        with self._lock:
            plans = self._load_all(_owner(subject)).values()
        return sorted((plan for plan in plans if not plan.is_expired), key=lambda plan: plan.age)

    def _surplus(self, plans: Mapping[_Key, StoredPlan], owner: str) -> list[_Key]:
        """Choose the plans to drop: expired ones, then the oldest of the owner and of all."""
        newest = sorted((key for key in plans if not plans[key].is_expired), key=lambda key: plans[key].age)
        own = [key for key in newest if key[0] == owner]
        kept = set(newest) - set(own[self._most_each :])
        kept = set([key for key in newest if key in kept][: self._most])
        return [key for key in plans if key not in kept]

    def _save(self, key: _Key, plan: StoredPlan) -> None:
        self._plans[key] = plan

    def _load(self, key: _Key) -> StoredPlan | None:
        return self._plans.get(key)

    def _load_all(self, owner: str) -> dict[_Key, StoredPlan]:
        """Return the plans of an owner, or of all owners where it is "*"."""
        return {key: plan for key, plan in self._plans.items() if owner in (key[0], "*")}

    def _remove(self, key: _Key) -> None:
        self._plans.pop(key, None)


class FolderPlanStore(PlanStore):
    """Plans in a folder: one folder for each caller, one file for each plan.

    A file is a SHA-256 digest of what follows it, the two times, and the plan. It is read again when it has changed.

    Raises:
        SetupError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path, most_each: int = _MOST_EACH, most: int = _MOST) -> None:
        super().__init__(most_each, most)
        self._folder = folder
        self._read: dict[_Key, tuple[int, StoredPlan | None]] = {}  # with the time the file was written
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SetupError(f"plans cannot be kept in {folder}: {error}; name another folder with --plans") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SetupError(
                f"plans cannot be kept in {folder}: it may not be written; name another folder with --plans"
            )

    def _path(self, key: _Key) -> Path:
        return self._folder / key[0] / f"{key[1]}{_SUFFIX}"

    def _save(self, key: _Key, plan: StoredPlan) -> None:
        """Write a plan. One that cannot be written is logged and not kept: its ticket is valid all the same."""
        body = _TIMES.pack(plan.created_ns, plan.expires_ns) + plan.content
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            atomic_write(path, _digest(body) + body, durable=False)
        except OSError as error:
            _log.warning("plan %s could not be kept: %s", plan.id, error)

    def _load(self, key: _Key) -> StoredPlan | None:
        """Read a file, or return what was read before; None, logged once, when it is damaged."""
        if not key[1].isalnum():  # ids are hexadecimal; nothing else may reach a path
            return None
        path = self._path(key)
        try:
            written = path.stat().st_mtime_ns
            known = self._read.get(key)
            if known is None or known[0] != written:
                known = self._read[key] = (written, _parse(key[1], path.read_bytes()))
                if known[1] is None:
                    _log.warning("%s is not a plan, or only part of one; it is left out", path)
        except OSError:
            self._read.pop(key, None)
            return None
        return known[1]

    def _load_all(self, owner: str) -> dict[_Key, StoredPlan]:
        keys = [(path.parent.name, path.stem) for path in self._folder.glob(f"{owner}/*{_SUFFIX}")]
        return {key: plan for key in keys if (plan := self._load(key))}

    def _remove(self, key: _Key) -> None:
        self._read.pop(key, None)
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)


def plan_store_at(folder: Path | None) -> PlanStore:
    """Return the store of a folder, or one in memory when there is none."""
    return PlanStore() if folder is None else FolderPlanStore(folder)


def _owner(subject: str) -> str:
    return hashlib.sha256(subject.encode()).hexdigest()[:32]


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(_FORMAT + body).digest()


def _parse(plan_id: str, content: bytes) -> StoredPlan | None:
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if _digest(body) != digest or len(body) < _TIMES.size:
        return None
    created_ns, expires_ns = _TIMES.unpack_from(body)
    return StoredPlan(id=plan_id, created_ns=created_ns, expires_ns=expires_ns, content=body[_TIMES.size :])
