"""The caller of an RPC: identity, grants and limits.

A `CallerPolicy` identifies the `Caller` of a connection, which is then available during the RPC. Grants are resources
such as `sample:digits-cvae` or `evaluate`; `*` after a colon or alone means all.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from service.errors import NotPermitted

__all__ = ["Anonymous", "Caller", "CallerLimits", "CallerPolicy", "current_caller", "enter_caller"]


@dataclass(frozen=True, kw_only=True)
class CallerLimits:
    """What one caller may use at once.

    Attributes:
        max_streams: open streams of samples, or of arrays that are computed for a call.
        max_open_calls: open calls of each other streaming RPC, as watches.
        max_queue_s: work waiting for a model, in seconds until its workers finish it.
    """

    max_streams: int = 1024
    max_open_calls: int = 512
    max_queue_s: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The user or program that makes a call.

    Attributes:
        subject: a stable name, for logs and ownership.
        grants: the resources the caller may use.
        limits: what the caller may use at once.
    """

    subject: str
    grants: frozenset[str]
    limits: CallerLimits = CallerLimits()

    def may(self, grant: str) -> bool:
        """Return whether the grants cover a resource."""
        kind = grant.partition(":")[0]
        return bool(self.grants & {"*", f"{kind}:*", grant})

    def require(self, grant: str) -> None:
        """Check a grant.

        Raises:
            NotPermitted: the caller lacks it.
        """
        if not self.may(grant):
            raise NotPermitted(f"{self.subject} lacks the grant {grant}; request it from the operator of this gateway")


class CallerPolicy(Protocol):
    """Identifies the callers of connections."""

    def identify(self, peer: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Caller:
        """Identify the caller of a connection."""
        ...


@dataclass(frozen=True, kw_only=True)
class Anonymous:
    """The policy for loopback: every caller is `anonymous` with every grant."""

    limits: CallerLimits = CallerLimits()

    def identify(self, peer: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Caller:
        """Return the caller `anonymous`."""
        return self._caller

    @cached_property
    def _caller(self) -> Caller:
        return Caller(subject="anonymous", grants=frozenset({"*"}), limits=self.limits)


_caller: ContextVar[Caller] = ContextVar("fount_caller")


def current_caller() -> Caller:
    """Return the caller of the current RPC, which the interceptor has set."""
    return _caller.get()


def enter_caller(caller: Caller) -> None:
    """Set the caller of the RPC that the current task handles."""
    _caller.set(caller)
