"""The signals that stop a command of the service: Ctrl-C, a stop by the system, a closed terminal."""

from __future__ import annotations

import asyncio
import signal

__all__ = ["stop_event", "stop_signals"]


def stop_signals() -> list[signal.Signals]:
    """List the signals that stop this process: SIGHUP does not where it is ignored, as under nohup."""
    signals = [signal.SIGINT, signal.SIGTERM]
    return signals if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*signals, signal.SIGHUP]


def stop_event() -> asyncio.Event:
    """Return an event of the running loop that these signals set."""
    event = asyncio.Event()
    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event
