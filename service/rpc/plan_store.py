"""Keep plans so that GetPlan and ListPlans find them: in memory, or in a folder that gateways may share.

A plan is kept for its caller until it expires. Pulling needs no store: a ticket holds everything that its rows are made
from.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from fount.files import atomic_write, make_private_folder
from fount.v1.augmentation_pb2 import Plan
from service.errors import SetupError
from service.rpc.paging import PAGE_BYTES, count_fitting, decode_token, encode_token

__all__ = ["FolderPlanStore", "PlanStore", "page_of_plans", "plan_store_at"]

_log = logging.getLogger(__name__)

_MOST_EACH, _MOST = 1000, 10_000
_DIGEST_BYTES = 32
_SUFFIX = ".plan"

_Key = tuple[str, str]
"""A digest of the caller's name, and the plan's id."""


class PlanStore:
    """Plans in memory, which end with this process. Thread-safe. Expired plans are never returned.

    Args:
        most_each: most plans of one caller; the oldest are dropped.
        most: most plans of all callers.
    """

    def __init__(self, most_each: int = _MOST_EACH, most: int = _MOST) -> None:
        self._most_each, self._most = most_each, most
        self._plans: dict[_Key, Plan] = {}
        self._lock = threading.Lock()

    def put(self, subject: str, plan: Plan) -> None:
        """Keep a plan, in place of one of the same id."""
        owner = _owner(subject)
        with self._lock:
            self._save((owner, plan.id), plan)
            for key in self._surplus(self._load_all("*"), owner):
                self._remove(key)

    def get(self, subject: str, plan_id: str) -> Plan | None:
        """Return a plan of a caller; None when there is none of the id."""
        with self._lock:
            plan = self._load((_owner(subject), plan_id))
        return None if plan is None or _is_expired(plan) else plan

    def plans_of(self, subject: str) -> list[Plan]:
        """Return the plans of a caller, newest first."""
        with self._lock:
            plans = self._load_all(_owner(subject)).values()
        return sorted((plan for plan in plans if not _is_expired(plan)), key=_age)

    def _surplus(self, plans: Mapping[_Key, Plan], owner: str) -> list[_Key]:
        """Choose the plans to drop: expired ones, then the oldest of the owner and of all."""
        newest = sorted((key for key in plans if not _is_expired(plans[key])), key=lambda key: _age(plans[key]))
        own = [key for key in newest if key[0] == owner]
        kept = set(newest) - set(own[self._most_each :])
        kept = set([key for key in newest if key in kept][: self._most])
        return [key for key in plans if key not in kept]

    def _save(self, key: _Key, plan: Plan) -> None:
        self._plans[key] = plan

    def _load(self, key: _Key) -> Plan | None:
        return self._plans.get(key)

    def _load_all(self, owner: str) -> dict[_Key, Plan]:
        """Return the plans of an owner, or of all owners where it is "*"."""
        return {key: plan for key, plan in self._plans.items() if owner in (key[0], "*")}

    def _remove(self, key: _Key) -> None:
        self._plans.pop(key, None)


class FolderPlanStore(PlanStore):
    """Plans in a folder: one folder for each caller, one file for each plan.

    A file is a SHA-256 digest of what follows it, and the serialized plan. It is read again when it has changed.

    Raises:
        SetupError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path, most_each: int = _MOST_EACH, most: int = _MOST) -> None:
        super().__init__(most_each, most)
        self._folder = folder
        self._read: dict[_Key, tuple[int, Plan | None]] = {}  # with the time the file was written
        try:
            if wrong := make_private_folder(folder):
                _log.warning("%s: it holds plans; chmod 700, or name another with --plans", wrong)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError("it may not be written")
        except OSError as error:
            raise SetupError(f"plans cannot be kept in {folder}: {error}; name another folder with --plans") from error

    def _path(self, key: _Key) -> Path:
        return self._folder / key[0] / f"{key[1]}{_SUFFIX}"

    def _save(self, key: _Key, plan: Plan) -> None:
        """Write a plan. One that cannot be written is logged and not kept: its ticket is valid all the same."""
        content, path = plan.SerializeToString(deterministic=True), self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            atomic_write(path, hashlib.sha256(content).digest() + content, durable=False, mode=0o600)
        except OSError as error:
            _log.warning("plan %s could not be kept: %s", plan.id, error)

    def _load(self, key: _Key) -> Plan | None:
        """Read a file, or return what was read before; None, logged once, when it is damaged."""
        if not key[1].isalnum():  # ids are hexadecimal; nothing else may reach a path
            return None
        path = self._path(key)
        try:
            written = path.stat().st_mtime_ns
            known = self._read.get(key)
            if known is None or known[0] != written:
                known = self._read[key] = (written, _parse(path.read_bytes()))
                if known[1] is None:
                    _log.warning("%s is not a plan, or only part of one; it is left out", path)
        except OSError:
            self._read.pop(key, None)
            return None
        return known[1]

    def _load_all(self, owner: str) -> dict[_Key, Plan]:
        keys = [(path.parent.name, path.stem) for path in self._folder.glob(f"{owner}/*{_SUFFIX}")]
        return {key: plan for key in keys if (plan := self._load(key))}

    def _remove(self, key: _Key) -> None:
        self._read.pop(key, None)
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)


def plan_store_at(folder: Path | None) -> PlanStore:
    """Return the store of a folder, or one in memory when there is none."""
    return PlanStore() if folder is None else FolderPlanStore(folder)


def page_of_plans(
    plans: Sequence[Plan], size: int, token: str, most_bytes: int = PAGE_BYTES
) -> tuple[Sequence[Plan], str]:
    """Cut one page from plans, newest first; it ends before `size` plans when they exceed `most_bytes`.

    Returns:
        The plans, and the token of the next page; empty at the end.

    Raises:
        ValueError: the token is none.
    """
    rest = plans
    if token:
        age, _, plan_id = decode_token(token).partition(" ")
        if not age.removeprefix("-").isdecimal():
            raise ValueError("is not one this gateway gave")
        rest = [plan for plan in plans if _age(plan) > (int(age), plan_id)]
    fitting = count_fitting((each.ByteSize() for each in rest[:size]), most_bytes)
    if len(rest) <= fitting:
        return rest, ""
    age_of_last, last_id = _age(rest[fitting - 1])
    return rest[:fitting], encode_token(f"{age_of_last} {last_id}")


def _age(plan: Plan) -> tuple[int, str]:
    """Sorts newest first; the id decides between equals."""
    return -plan.create_time.ToNanoseconds(), plan.id


def _is_expired(plan: Plan) -> bool:
    return time.time_ns() >= plan.expire_time.ToNanoseconds()


def _owner(subject: str) -> str:
    return hashlib.sha256(subject.encode()).hexdigest()[:32]


def _parse(content: bytes) -> Plan | None:
    digest, message = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(message).digest() != digest:
        return None
    try:
        return Plan.FromString(message)
    except DecodeError:
        return None
