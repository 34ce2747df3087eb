"""Who asks, and what they may: every call has a caller.

Connection facts enter a `CallerPolicy`; a `Caller` leaves and travels with the call. Grants are resources such as
`sample:digits-cvae` or `evaluate`; `*` after a colon or alone stands for all.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from service.errors import NotPermitted

__all__ = ["Anonymous", "Caller", "CallerLimits", "CallerPolicy", "current_caller", "enter_caller"]


@dataclass(frozen=True, kw_only=True)
class CallerLimits:
    """What one caller may hold at once.

    Attributes:
        max_streams: open Sample streams.
        max_queue_s: seconds of a worker's time that their samples waiting to be drawn may cost.
    """

    max_streams: int = 1024
    max_queue_s: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whoever makes a call.

    Attributes:
        subject: a stable name, for logs and ownership.
        grants: the resources they may use.
        limits: what they may hold at once.
    """

    subject: str
    grants: frozenset[str]
    limits: CallerLimits = CallerLimits()

    def may(self, grant: str) -> bool:
        """Tell whether a grant covers a resource."""
        kind = grant.partition(":")[0]
        return bool(self.grants & {"*", f"{kind}:*", grant})

    def require(self, grant: str) -> None:
        """Insist on a grant.

        Raises:
            NotPermitted: the caller lacks it.
        """
        if not self.may(grant):
            raise NotPermitted(f"{self.subject} lacks the grant {grant}; ask whoever runs this gateway for it")


class CallerPolicy(Protocol):
    """Tells who a connection belongs to."""

    def identify(self, peer: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Caller:
        """Name the caller behind a connection."""
        ...


@dataclass(frozen=True, kw_only=True)
class Anonymous:
    """The policy of loopback: everyone is `anonymous` with every grant."""

    limits: CallerLimits = CallerLimits()

    def identify(self, peer: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Caller:
        """Name the caller `anonymous`."""
        return Caller(subject="anonymous", grants=frozenset({"*"}), limits=self.limits)


_caller: ContextVar[Caller] = ContextVar("fount_caller")


def current_caller() -> Caller:
    """The caller of the RPC being handled; set by the interceptor for every one."""
    return _caller.get()


def enter_caller(caller: Caller) -> None:
    """Make `caller` the one of the RPC handled by the present task."""
    _caller.set(caller)
