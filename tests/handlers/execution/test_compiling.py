"""Compiled networks: numerics of their own, the same promises, and a reason where compiling does not work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from handlers.execution.compiling import Inductor, compile_called, compiler_name, find_compiler
from handlers.worker.worker import Worker
from tests.handlers.toys import LATENT, DeepSampler, load, request, sample_item, send, toy_card, write_folder

COMPILED = {"FOUNT_WORKER_COMPILED": "1"}
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=f"no C++ compiler: {compiler_name()} is not there")


@pytest.fixture(scope="module", autouse=True)
def _reset() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("small"), toy_card(max_exec_batch=8), DeepSampler(3))


@pytest.fixture(scope="module")
def compiled(small_folder: Path) -> Worker:
    return load(small_folder, DeepSampler, COMPILED)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_model_is_ready_under_numerics_of_its_own(compiled: Worker) -> None:
    assert compiled.model.reason == ""
    assert "-fp32-nhwc-folded-compiled-t1-" in send(compiled, request(sample_item())).numerics


@pytest.mark.slow
@needs_compiler
def test_a_compiled_model_draws_by_address(compiled: Worker) -> None:
    together = send(compiled, request(sample_item(count=20))).items[0].value.data
    assert together == b"".join(send(compiled, request(sample_item(start=i))).items[0].value.data for i in range(20))


@needs_compiler
def test_every_size_of_a_compiled_model_is_compiled(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    sizes: list[int] = []

    def note(inductor: Inductor, graph: Any, inputs: list[torch.Tensor]) -> Any:
        inductor.graphs += 1
        sizes.extend(len(tensor) for tensor in inputs if tensor.shape[1:] == (LATENT + 3,) and len(tensor) != 16)
        return graph.forward

    monkeypatch.setattr("handlers.execution.compiling.Inductor.__call__", note)
    assert load(small_folder, DeepSampler, COMPILED).model.engine
    assert sorted(sizes) == [1, 8]


@needs_compiler
def test_a_model_of_which_nothing_could_be_compiled_is_unavailable(
    small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.compile", lambda run, dynamic, backend: run)
    reason = load(small_folder, DeepSampler, COMPILED).model.reason
    assert reason == "torch could not compile any part of the model; set compiled to 0"


def test_a_missing_compiler_is_named(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = load(small_folder, DeepSampler, COMPILED).model.reason
    assert reason.startswith("the model is to be compiled, but there is no C++ compiler 'no-such-compiler'")


@needs_compiler
def test_a_failing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Machine code of other sizes may be there from before; that of 16 is not.
    folder = write_folder(tmp_path / "toy", toy_card(max_exec_batch=16), DeepSampler(3))
    broken = tmp_path / "broken-g++"
    broken.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'broken-g++ 1.0' && exit 0\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setenv("CXX", str(broken))
    reason = load(folder, DeepSampler, COMPILED | {"FOUNT_STATE_DIR": str(tmp_path)}).model.reason
    assert reason.startswith("the model cannot be compiled with broken-g++ 1.0: ")
    assert "set FOUNT_WORKER_COMPILED to 0" in reason


def test_only_what_a_batch_calls_from_outside_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outer = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    parts = torch.nn.ModuleDict({"used": outer, "unused": torch.nn.Linear(2, 2)})
    monkeypatch.setattr("torch.compile", lambda run, dynamic, backend: run)
    monkeypatch.setattr("handlers.execution.compiling.find_compiler", lambda: "c++")
    monkeypatch.setattr("handlers.execution.compiling._configure", lambda _cache: None)
    compile_called(parts, lambda: outer(torch.zeros(1, 2)), tmp_path)
    assert [name for name, part in parts.named_modules() if "forward" in vars(part)] == ["used"]
