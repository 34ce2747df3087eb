"""Whether workers stay alive: TorchServe calls a model healthy while its workers die and are started, over and over."""

from __future__ import annotations

from collections import deque

__all__ = ["Stability"]

_WINDOW_S = 60.0
_DEATHS = 3  # of each worker, within the window: a loop, not an accident
_STABLE_S = 15.0


class Stability:
    """The lives of the workers of one model version, as its replica sees them from look to look."""

    def __init__(self) -> None:
        self._since_s: dict[int, float] = {}
        self._deaths_s: deque[float] = deque()
        self._most = 1

    def saw(self, pids: frozenset[int], now_s: float) -> None:
        """Take note of the workers that are ready now; more than before is growth, fewer or others is a death."""
        if self._since_s.keys() - pids:
            self._deaths_s.append(now_s)
        self._since_s = {pid: self._since_s.get(pid, now_s) for pid in pids}
        self._most = max(self._most, len(pids))
        while self._deaths_s and now_s - self._deaths_s[0] > _WINDOW_S:
            self._deaths_s.popleft()

    def sound(self, now_s: float) -> int:
        """How many workers can be relied on: all, or while they keep dying only those that lived a while."""
        if not self._keep_dying:
            return len(self._since_s)
        return sum(now_s - since_s >= _STABLE_S for since_s in self._since_s.values())

    @property
    def reason(self) -> str:
        """Why none can be relied on, when none can."""
        return f"its workers keep dying ({len(self._deaths_s)} times in the last minute); the worker's log says why"

    def forget(self) -> None:
        """Start anew: they all went with their TorchServe, which is not their fault."""
        self._since_s = {}

    @property
    def _keep_dying(self) -> bool:
        return len(self._deaths_s) >= _DEATHS * self._most
