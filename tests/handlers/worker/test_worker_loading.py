"""Loading: what makes a worker unavailable, and the reason it reports."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from google.rpc import code_pb2
from safetensors.torch import load_file, save_file

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import load_card, write_card
from handlers.cards.digests import file_digest
from handlers.entry import Entry
from handlers.worker.worker import Worker
from tests.handlers.toys import (
    RandomSampler,
    ToySampler,
    codes,
    load,
    request,
    sample_item,
    seal_folder,
    send,
    toy_card,
    write_folder,
)

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(toy_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy_folder, tmp_path / "toy")


def _replace_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    card = load_card(folder)
    save_file(change(load_file(folder / card.weights.file)), folder / card.weights.file)
    digest = file_digest(folder / card.weights.file)
    card = dataclasses.replace(card, weights=dataclasses.replace(card.weights, digest=digest))
    write_card(card, folder)
    seal_folder(folder, card)


def _describe(worker: Worker) -> worker_pb2.Description:
    return send(worker, request(operation=model_pb2.OPERATION_DESCRIBE)).description


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            lambda tensors: {"decode.weight": tensors["decode.weight"]},
            "weights.safetensors lacks decode.bias; make the card's family and configuration match",
            id="missing-name",
        ),
        pytest.param(
            lambda tensors: tensors | {"more": torch.zeros(1)},
            "weights.safetensors has unknown more; make the card's family and configuration match",
            id="unknown-name",
        ),
        pytest.param(
            lambda tensors: tensors | {"decode.bias": torch.zeros(3)},
            "weights.safetensors: decode.bias has shape (3,), the module has (16,); "
            "make the card's family and configuration match",
            id="wrong-shape",
        ),
        pytest.param(
            lambda tensors: tensors | {"decode.bias": torch.full((16,), float("nan"))},
            "weights.safetensors: decode.bias holds NaN or infinite values; train the model again",
            id="nan",
        ),
    ],
)
def test_weights_that_do_not_fit_make_it_unavailable(
    folder: Path, change: Callable[[Tensors], Tensors], reason: str
) -> None:
    _replace_weights(folder, change)
    assert load(folder, ToySampler).model.reason == reason


def test_weights_that_are_no_safetensors_make_it_unavailable(folder: Path) -> None:
    card = load_card(folder)
    (folder / card.weights.file).write_bytes(b"no")
    write_card(
        dataclasses.replace(
            card, weights=dataclasses.replace(card.weights, digest=file_digest(folder / card.weights.file))
        ),
        folder,
    )
    seal_folder(folder, card)
    assert "cannot be read as safetensors" in load(folder, ToySampler).model.reason


def test_a_changed_file_makes_it_unavailable(folder: Path) -> None:
    with (folder / "family.py").open("ab") as stream:
        stream.write(b"#")
    reason = load(folder, ToySampler).model.reason
    assert "family.py has sha256:" in reason
    assert "its list says sha256:" in reason


def test_an_empty_folder_makes_it_unavailable(tmp_path: Path) -> None:
    assert "was not packed by `fount pack`" in load(tmp_path, ToySampler).model.reason


def test_a_precision_the_card_lacks_makes_it_unavailable(tmp_path: Path) -> None:
    card = dataclasses.replace(toy_card(), precisions=("fp32",))
    folder = write_folder(tmp_path / "toy", card, ToySampler(3))
    reason = load(folder, ToySampler, {"FOUNT_WORKER_PRECISION": "bf16"}).model.reason
    assert reason.startswith("the precision is set to bf16, the card allows fp32; set FOUNT_WORKER_PRECISION, or")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("FOUNT_WORKER_THREADS", "0", "FOUNT_WORKER_THREADS is '0'; set it to a whole number from 1 to 1024"),
        ("FOUNT_WORKER_THREADS", "two", "FOUNT_WORKER_THREADS is 'two'; set it to a whole number from 1 to 1024"),
        ("FOUNT_WORKER_PRECISION", "fp64", "FOUNT_WORKER_PRECISION is 'fp64'; set it to fp32 or bf16"),
        ("FOUNT_WORKER_LAYOUT", "nhcw", "FOUNT_WORKER_LAYOUT is 'nhcw'; set it to nchw or nhwc"),
        ("FOUNT_WORKER_COMPILED", "yes", "FOUNT_WORKER_COMPILED is 'yes'; set it to 0 or 1"),
    ],
)
def test_an_invalid_setting_makes_it_unavailable(toy_folder: Path, name: str, value: str, reason: str) -> None:
    assert load(toy_folder, ToySampler, {name: value}).model.reason == reason


def test_threads_are_those_of_the_environment(toy_folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        worker = load(toy_folder, ToySampler, {"FOUNT_WORKER_THREADS": "2"})
        assert torch.get_num_threads() == 2
        assert "-t2-" in _describe(worker).numerics
    finally:
        torch.set_num_threads(before)


def test_a_family_that_raises_anything_leaves_the_worker_up(toy_folder: Path) -> None:
    def build(_name: str, _config: object) -> ToySampler:
        raise ZeroDivisionError

    reason = Worker.load(toy_folder, {}, build_family=build).model.reason
    assert reason == "loading failed with ZeroDivisionError; the worker's log has the traceback"


class Left(BaseException):
    """The process would have ended here."""


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds slept; leaving the process raises."""
    slept: list[float] = []

    def leave(status: int) -> None:
        assert status == 1
        raise Left

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def _failing(errors: list[Exception]) -> Callable[[str, object], ToySampler]:
    def build(_name: str, _config: object) -> ToySampler:
        if errors:
            raise errors.pop()
        return ToySampler(3)

    return build


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")], ids=["host", "cuda"])
def test_a_temporary_lack_of_memory_is_retried(toy_folder: Path, delays: list[float], error: Exception) -> None:
    assert Worker.load(toy_folder, {}, build_family=_failing([error, error])).model.engine
    assert delays == [2.0, 2.0]


def test_a_permanent_lack_of_memory_ends_the_process(toy_folder: Path, delays: list[float]) -> None:
    errors: list[Exception] = [MemoryError() for _ in range(9)]
    with pytest.raises(Left):
        Worker.load(toy_folder, {}, build_family=_failing(errors))
    assert (len(errors), len(delays)) == (6, 2)


def test_a_device_that_is_lost_while_loading_ends_the_process_at_once(
    toy_folder: Path, delays: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Left):
        Worker.load(toy_folder, {}, build_family=_failing([RuntimeError("CUDA error: unknown error")]))
    assert delays == []
    assert "the device is lost (CUDA error: unknown error); exiting" in caplog.text


def test_a_family_that_is_random_is_unavailable(toy_folder: Path) -> None:
    reason = load(toy_folder, RandomSampler).model.reason
    assert reason == "no batch size gives a row the same bytes twice; look for randomness or state in the family"


def test_an_unavailable_worker_answers_every_item_unavailable(toy_folder: Path) -> None:
    reply = send(load(toy_folder, RandomSampler), request(sample_item(), sample_item()))
    assert codes(reply) == [code_pb2.UNAVAILABLE] * 2
    assert reply.items[0].status.message.startswith("no batch size gives")


def test_an_unavailable_worker_still_describes_itself(toy_folder: Path) -> None:
    result = _describe(load(toy_folder, RandomSampler))
    assert result.model.state == model_pb2.Model.STATE_UNAVAILABLE
    assert result.model.ref.name == "toy"
    assert result.model.state_reason.startswith("no batch size gives")


def test_a_ready_worker_describes_its_card(worker: Worker) -> None:
    model = _describe(worker).model
    assert (model.ref.name, model.ref.version, model.state) == ("toy", "1.0", model_pb2.Model.STATE_READY)
    assert [label.name for label in model.condition.labels] == ["class 0", "class 1", "class 2"]
    assert list(model.sample_spec.dims) == [4, 4, 1]
    assert [parameter.name for parameter in model.parameters] == ["truncation"]
    assert not model.parameters[0].HasField("default_value")
    assert not model.quality[0].HasField("real_value")


def test_a_ready_worker_describes_what_it_runs_on(worker: Worker) -> None:
    result = _describe(worker)
    assert list(result.exec_batch_sizes)[-1] == 32
    assert "threads: 1" in result.numerics_details


def test_an_unconditional_model_has_no_condition(unconditional: Worker) -> None:
    assert not _describe(unconditional).model.HasField("condition")


def _entry(folder: Path) -> Entry:
    entry = Entry()
    entry.initialize(SimpleNamespace(system_properties={"model_dir": str(folder), "gpu_id": None}))
    return entry


@pytest.mark.parametrize("key", ["body", "data"])
def test_the_entry_answers_each_call_of_torchserve(tmp_path: Path, key: str) -> None:
    described = request(operation=model_pb2.OPERATION_DESCRIBE).SerializeToString()
    replies = _entry(tmp_path).handle([{key: bytearray(described)}, {}], None)
    first, second = (worker_pb2.WorkerReply.FromString(reply) for reply in replies)
    assert first.description.model.state == model_pb2.Model.STATE_UNAVAILABLE
    assert codes(second) == [code_pb2.INVALID_ARGUMENT]


def test_the_entry_freezes_loaded_objects_for_the_garbage_collector(tmp_path: Path) -> None:
    try:
        gc.unfreeze()
        _entry(tmp_path)
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_the_entry_file_defines_one_class() -> None:
    import handlers.entry as module

    defined = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    assert [value for value in defined if isinstance(value, type)] == [Entry]
