"""Memory: how much memory there is, as Linux and its control groups report."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.loading.memory import InsufficientMemoryError, available_bytes, require_memory

MEMINFO = "MemTotal: 2000 kB\nMemAvailable: 1000 kB\nHugePages_Total: 0\n"


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="nothing to read"),
        pytest.param({"proc/meminfo": MEMINFO}, 1_024_000, id="the machine"),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory.max": "500000\n",
                "sys/fs/cgroup/memory.current": "300000\n",
                "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 50000\n",
            },
            250_000,
            id="a control group",
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory.max": "max\n",
                "sys/fs/cgroup/memory.current": "300000\n",
            },
            1_024_000,
            id="a control group without limit",
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "400000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "500000\n",
            },
            0,
            id="an older control group that is full",
        ),
    ],
)
def test_free_memory_is_the_smaller_of_machine_and_group(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    assert available_bytes(_write(tmp_path, files)) == expected


def test_this_machine_reports_free_memory() -> None:
    assert (available_bytes() or 0) > 2**20


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
def test_a_file_needs_twice_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, fits: bool) -> None:
    (tmp_path / "w").write_bytes(bytes(size))
    monkeypatch.setattr("handlers.loading.memory.available_bytes", lambda: 2000)
    if fits:
        require_memory(tmp_path / "w")
    else:
        with pytest.raises(InsufficientMemoryError, match="use a machine or a limit with more memory"):
            require_memory(tmp_path / "w")
