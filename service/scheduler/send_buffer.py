"""Room for samples made but not yet taken: bounded for one stream, and for all of them together.

A stream asks how much more it may hold; readers that stop keep what they hold and get no more. Half of the room is
shared by whoever is fast, the other half is a floor under each stream, so that those who stopped starve nobody.
"""

from __future__ import annotations

from service.config import GatewayConfig

__all__ = ["UnreadRoom"]


class UnreadRoom:
    """The room of one gateway, in bytes.

    Args:
        config: `window_bytes` a stream, `max_unread_bytes` for all of them, `max_streams`.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._window = config.window_bytes
        self._shared = config.max_unread_bytes // 2
        self._floor = config.max_unread_bytes // (2 * config.max_streams)
        self.streams = 0
        self.held = 0

    def left_for(self, held: int) -> int:
        """How many more bytes a stream that holds `held` may hold now; may be 0 or less."""
        share = min(self._window, self._shared // max(1, self.streams))
        return max(min(self._floor, self._window) - held, min(share - held, self._shared - self.held))
