"""Peers as child processes, each in an environment of its own that is installed on first use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from benchmarks.child import ROOT
from benchmarks.plan import OTHERS_WORKLOADS, Layout
from benchmarks.processes import Server, StartError, end_group
from benchmarks.request_body import body_of

__all__ = ["PEERS", "Peer", "PeerSetting", "install_peers", "peer_server", "peer_settings"]

_REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
_START_S, _POLL_S = 120.0, 0.2


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model server.

    Attributes:
        module: of this package, which serves the model.
        path: of requests.
        waits_ms: how long a batch waits for further requests, by workload.
        batch: requests of one batch.
        arguments: further command-line arguments.
    """

    module: str
    path: str
    waits_ms: Mapping[str, int]
    batch: int
    arguments: tuple[str, ...] = ()


_ALWAYS_1_MS = dict.fromkeys(OTHERS_WORKLOADS, 1)
# The option --wait is the only way to let mosec wait less than 1 ms.
_MOSEC_OPTIONS = (
    "--address",
    "127.0.0.1",
    "--port",
    "0",
    "--timeout",
    "60000",
    "--log-level",
    "warning",
    "--wait",
    "0",
)

PEERS: Mapping[str, Peer] = {
    "mosec": Peer(
        module="mosec_server", path="/inference", waits_ms=_ALWAYS_1_MS | {"single": 0}, batch=32,
        arguments=_MOSEC_OPTIONS,
    ),
    "litserve": Peer(module="litserve_server", path="/predict", waits_ms=_ALWAYS_1_MS, batch=32),
}  # fmt: skip
"""By contender. Waits and batch sizes are the best of a trial, see README.md."""


@dataclass(frozen=True, kw_only=True)
class PeerSetting:
    """A peer as it is measured.

    Attributes:
        name: of `PEERS`.
        layout: workers × threads.
        wait_ms: how long a batch waits for further requests.
    """

    name: str
    layout: Layout
    wait_ms: int

    def __str__(self) -> str:
        return f"{self.layout}, wait {self.wait_ms} ms"


def peer_settings(layouts: Iterable[Layout], workloads: Iterable[str]) -> list[PeerSetting]:
    """List the settings in which some workloads are measured, each once."""
    settings = [
        PeerSetting(name=name, layout=layout, wait_ms=peer.waits_ms[workload])
        for name, peer in PEERS.items()
        for layout in layouts
        for workload in workloads
    ]
    return list(dict.fromkeys(settings))


def install_peers(folder: Path, log: Callable[[str], None]) -> Path | None:
    """Install the peers into a virtual environment, unless they are there.

    Args:
        folder: of the environment; packages of this process, torch among them, are visible in it.
        log: called when they cannot be installed.

    Returns:
        Its Python; None when there is no package index.
    """
    installed, python = folder / "installed.txt", folder / "bin" / "python"
    wanted = _REQUIREMENTS.read_text(encoding="utf-8")
    if installed.is_file() and installed.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(folder, with_pip=True, clear=True)
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "-r", str(_REQUIREMENTS))
    if subprocess.run([python, "-m", "pip", "install", *options], stdout=sys.stderr, check=False).returncode:
        log("mosec and LitServe could not be installed, see above; going on without them")
        return None
    own = next(folder.glob("lib/python*/site-packages"))
    shared = [str(ROOT), *(each for each in sys.path if each.endswith("site-packages"))]
    (own / "shared.pth").write_text("".join(f"import site; site.addsitedir({each!r})\n" for each in shared))
    installed.write_text(wanted, encoding="utf-8")
    return python


@contextmanager
def peer_server(
    setting: PeerSetting, python: Path, unpacked: Path, environment: Mapping[str, str], log: Path
) -> Iterator[Server]:
    """Run a peer until the block ends.

    Args:
        setting: of `peer_settings`.
        python: of `install_peers`.
        unpacked: folder of the model.
        environment: of Fount's workers, with threads and precision.
        log: file for its output.

    Raises:
        StartError: it did not answer.
    """
    peer = PEERS[setting.name]
    module, workers = f"benchmarks.peers.{peer.module}", setting.layout.workers
    command = [python, "-m", module, unpacked, workers, setting.wait_ms, peer.batch]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*map(str, command), *peer.arguments], env=dict(environment), cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True, text=True,
        )  # fmt: skip
    try:
        port = _wait_for_port(process, peer, log)
        top = psutil.Process(process.pid)
        roles = {"server": [top, *top.children(recursive=True)]}
        yield Server(url=f"{setting.name}://127.0.0.1:{port}", polls=True, roles=roles)
    finally:
        os.killpg(process.pid, signal.SIGCONT)  # it may be stopped, see Server.polls
        end_group(process)


def _wait_for_port(process: subprocess.Popen[str], peer: Peer, log: Path) -> int:
    """Wait until one of the listening ports answers a request."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        for port in _listening(psutil.Process(process.pid)):
            with suppress(OSError, HTTPException):
                connection = HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request(
                    "POST", peer.path, body_of(1, 0, b"\0"), {"Content-Type": "application/octet-stream"}
                )
                if connection.getresponse().status == 200:
                    return port
        time.sleep(_POLL_S)
    last = log.read_text(errors="replace").splitlines()[-20:]
    raise StartError(f"{peer.module} did not start:\n" + "\n".join(last))


def _listening(process: psutil.Process) -> set[int]:
    found: set[int] = set()
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            found |= {c.laddr.port for c in each.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found
