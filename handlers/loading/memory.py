"""Room: whether a model's weights fit into memory, asked before they are loaded.

A process that runs out of memory is killed without a word and started again for ever; one that asks first stays up and
can say why. Linux tells; elsewhere nothing is known, and nothing is refused.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["RoomError", "available_bytes", "check_room"]

_COPIES = 2  # while loading: the module's own tensors, and those of the file
_MEBIBYTE = 2**20


class RoomError(Exception):
    """A model does not fit into this machine's memory. Serve it on a larger one, or give the worker more."""


def check_room(file: Path) -> None:
    """Make sure that a weights file can be loaded.

    Raises:
        RoomError: it would not fit; both sizes are named.
    """
    available = available_bytes()
    needed = _COPIES * (file.stat().st_size if file.is_file() else 0)
    if available is not None and needed > available:
        sizes = f"needs {_tell(needed)} of memory to load, {_tell(available)} are free"
        raise RoomError(f"{file.name} {sizes}; use a machine or a limit with more memory, or fewer workers")


def available_bytes(root: Path = Path("/")) -> int | None:
    """Tell how much memory this process may still take: the machine's, or what its control group leaves of it.

    Args:
        root: where `proc` and `sys` are.

    Returns:
        Bytes; None where nothing tells.
    """
    rooms = [_room_of_machine(root), _room_of_group(root)]
    return min((room for room in rooms if room is not None), default=None)


def _room_of_machine(root: Path) -> int | None:
    values = _read_pairs(root / "proc/meminfo")
    kibibytes = values.get("MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _room_of_group(root: Path) -> int | None:
    """Read the limit of a control group, of version 2 or 1; what caches files can be taken back, so it is free."""
    group = root / "sys/fs/cgroup"
    for folder, limit, used, cached in (
        (group, "memory.max", "memory.current", "inactive_file"),
        (group / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _read_number(folder / limit), _read_number(folder / used)
        if most is not None and now is not None:
            return max(0, most - now + _read_pairs(folder / "memory.stat").get(cached, 0))
    return None


def _read_number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _read_pairs(file: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) >= 2 and words[1].isdigit()}


def _tell(size: int) -> str:
    return f"{size / _MEBIBYTE:,.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.0f} GiB"
