"""Tuned settings: a file that takes precedence over the environment, with its problems reported."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fount.tuned import TunedError, TunedModel, read_tuned, write_tuned
from handlers.loading.memory import keep_freed_memory
from handlers.settings import Settings, SettingsError, settings_from_environment
from tests.handlers.toys import ToySampler, load, request, sample_item, send

ALL_STEPS = "models: {toy: {workers: 2, threads: 2, precision: bf16, layout: nchw, folded: false, compiled: true}}"
ENVIRONMENT = {"FOUNT_WORKER_THREADS": "3", "FOUNT_WORKER_LAYOUT": "nhwc"}


def _settings(file: Path, text: str, model: str = "toy") -> Settings:
    file.write_text(text)
    return settings_from_environment(ENVIRONMENT | {"FOUNT_WORKER_CONFIG": str(file)}, model=model)


def test_a_models_entry_takes_precedence_over_the_environment(tmp_path: Path) -> None:
    found = _settings(tmp_path / "workers.yaml", ALL_STEPS)
    assert found == Settings(threads=2, precision="bf16", chosen_layout="nchw", folded=False, compiled=True)


def test_keys_absent_from_an_entry_come_from_the_environment(tmp_path: Path) -> None:
    found = _settings(tmp_path / "workers.yaml", "models: {toy: {threads: 2}}")
    assert found == Settings(threads=2, chosen_layout="nhwc")


def test_a_model_without_an_entry_has_the_settings_of_the_environment(tmp_path: Path) -> None:
    assert _settings(tmp_path / "workers.yaml", ALL_STEPS, model="other") == Settings(threads=3, chosen_layout="nhwc")


def test_an_entry_can_turn_folding_on(tmp_path: Path) -> None:
    file = tmp_path / "workers.yaml"
    file.write_text("models: {toy: {folded: true}}")
    environment = {"FOUNT_WORKER_FOLDED": "0", "FOUNT_WORKER_CONFIG": str(file)}
    assert settings_from_environment(environment, model="toy").folded


def test_an_entry_can_turn_compiling_off(tmp_path: Path) -> None:
    file = tmp_path / "workers.yaml"
    file.write_text("models: {toy: {compiled: false}}")
    environment = {"FOUNT_WORKER_COMPILED": "1", "FOUNT_WORKER_CONFIG": str(file)}
    assert not settings_from_environment(environment, model="toy").compiled


@pytest.mark.parametrize(
    ("text", "result"),
    [
        pytest.param("models: {toy: {thread: 2}}", "models.toy.thread: unknown key; did you mean 'threads'?", id="key"),
        pytest.param("model: {}", "model: unknown key; did you mean 'models'?", id="top"),
        pytest.param("models: {toy: {layout: nhcw}}", "must be one of nchw, nhwc; did you mean nhwc?", id="choice"),
        pytest.param("models: {toy: {threads: 0}}", "models.toy.threads: is 0; must be 1 to 1024", id="number"),
        pytest.param("models: [", "is not YAML", id="yaml"),
    ],
)
def test_problems_of_a_file_are_reported(tmp_path: Path, text: str, result: str) -> None:
    with pytest.raises(SettingsError, match="FOUNT_WORKER_CONFIG cannot be used") as caught:
        _settings(tmp_path / "workers.yaml", text)
    assert result in str(caught.value)


def test_an_absent_file_is_reported(toy_folder: Path, tmp_path: Path) -> None:
    reason = load(toy_folder, ToySampler, {"FOUNT_WORKER_CONFIG": str(tmp_path / "none.yaml")}).model.reason
    assert "none.yaml cannot be read: No such file or directory; run `fount tune NAME`" in reason


def test_a_worker_uses_the_tuned_settings(toy_folder: Path, tmp_path: Path) -> None:
    write_tuned(tmp_path / "workers.yaml", "toy", TunedModel(layout="nhwc"))
    worker = load(toy_folder, ToySampler, {"FOUNT_WORKER_CONFIG": str(tmp_path / "workers.yaml")})
    assert "-fp32-nhwc-folded-t1-" in send(worker, request(sample_item())).numerics


def test_writing_an_entry_keeps_those_of_other_models(tmp_path: Path) -> None:
    file = tmp_path / "state" / "workers.yaml"
    write_tuned(file, "one", TunedModel(threads=1))
    write_tuned(file, "two", TunedModel(threads=2, compiled=False))
    write_tuned(file, "one", TunedModel(threads=4))
    assert read_tuned(file) == {"one": TunedModel(threads=4), "two": TunedModel(threads=2, compiled=False)}
    assert [path.name for path in file.parent.iterdir()] == ["workers.yaml"]


def test_a_file_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "workers.yaml"
    file.write_text("models: {one: {thread: 2}}")
    with pytest.raises(TunedError, match="did you mean 'threads'"):
        write_tuned(file, "two", TunedModel())
    assert file.read_text() == "models: {one: {thread: 2}}"


def test_freed_memory_is_kept_where_the_allocator_can() -> None:
    assert keep_freed_memory() is hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_in_every_thread() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS_SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # 1000 in an arena of the thread's own


FAULTS_SCRIPT = """
import resource, threading
import numpy as np
from handlers.loading.memory import keep_freed_memory

def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.full(2**24, 1, np.uint8) for _ in range(8)]  # more than one heap of a thread's own arena
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

keep_freed_memory()
faults = []
for i in range(3):
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
print(faults[-1])
"""


def test_an_allocator_without_the_setting_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())
    with caplog.at_level("INFO"):
        assert not keep_freed_memory()
    assert "does not support keeping freed memory" in caplog.text
