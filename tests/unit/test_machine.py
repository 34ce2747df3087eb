"""What this process may use of its machine, as Linux and its control groups report."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from fount.machine import available_bytes, raise_descriptor_limit, usable_cores

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


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 4, 5}, raising=False)


CPU = "sys/fs/cgroup/cpu/cpu.cfs_"


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 4, id="affinity alone"),
        pytest.param({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 4, id="a control group without limit"),
        pytest.param({"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2, id="a control group"),
        pytest.param({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, id="less than a core"),
        pytest.param({"sys/fs/cgroup/cpu.max": "800000 100000\n"}, 4, id="a control group of more cores"),
        pytest.param({f"{CPU}quota_us": "300000\n", f"{CPU}period_us": "100000\n"}, 3, id="an older control group"),
        pytest.param({f"{CPU}quota_us": "-1\n", f"{CPU}period_us": "100000\n"}, 4, id="an older one without limit"),
    ],
)
def test_usable_cores_are_limited_by_affinity_and_group(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert usable_cores(_write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [(1024, 4096, 4096), (1024, 1 << 30, 1 << 16), (1024, resource.RLIM_INFINITY, 1 << 16)],
    ids=["to-the-hard-one", "to-a-sane-one", "unlimited"],
)
def test_the_limit_of_descriptors_is_raised(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, given: limits.append(given))
    assert (raise_descriptor_limit(), limits[-1]) == (raised, (raised, hard))


def test_a_higher_limit_of_descriptors_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100_000, 200_000))
    assert raise_descriptor_limit() == 100_000


def test_a_limit_of_descriptors_that_cannot_be_raised_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 256
