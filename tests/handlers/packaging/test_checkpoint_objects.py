"""Objects next to the weights of a checkpoint are dropped and listed, never made; hostile ones run nothing."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import io
import os
import pathlib
import pickle
import subprocess
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor, nn

from handlers.cli.convert import convert as convert_command
from handlers.packaging.convert import ConvertError, convert

STATE = {"net.weight": torch.arange(6.0).reshape(2, 3), "net.bias": torch.ones(2)}
HERE = "tests.handlers.packaging.test_checkpoint_objects"
SCALAR = f"{np.int64(5).__reduce__()[0].__module__}.scalar"  # the module differs between versions of NumPy


@dataclasses.dataclass
class Config:
    """What an author's own class would be; nothing of it may be called."""

    width: int = 3
    schedule: object = None

    def __setstate__(self, state: object) -> None:
        raise AssertionError("it was made")


class Colour(enum.Enum):
    RED = 1


class Average:
    def __init__(self) -> None:
        self.shadow = {"net.weight": torch.zeros(2, 3)}


HARMLESS = {
    "a NumPy scalar": (np.float64(0.5), SCALAR),
    "arguments": (argparse.Namespace(lr=np.float32(0.1), out=pathlib.Path("runs")), "argparse.Namespace"),
    "a namespace": (types.SimpleNamespace(a=1), "types.SimpleNamespace"),
    "a path": (pathlib.PurePosixPath("a/b"), f"{pathlib.PurePosixPath.__module__}.PurePosixPath"),
    "a time": (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "datetime.datetime"),
    "a dataclass": (Config(schedule=datetime.date(2026, 1, 1)), f"{HERE}.Config"),
    "an enum": (Colour.RED, f"{HERE}.Colour"),
    "a frozen set": (frozenset({1}), "builtins.frozenset"),
}


def _save(folder: Path, checkpoint: object, *, is_zip: bool = True) -> Path:
    torch.save(checkpoint, folder / "last.ckpt", _use_new_zipfile_serialization=is_zip)
    return folder / "last.ckpt"


def _convert(file: Path, key: str | None = None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    dropped = convert(file, file.parent / "out.safetensors", key=key, force=True).dropped
    return load_file(file.parent / "out.safetensors"), dropped


def _refusal(file: Path) -> str:
    with pytest.raises(ConvertError) as caught:
        convert(file, file.parent / "out.safetensors")
    assert not (file.parent / "out.safetensors").exists()
    return str(caught.value)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(("extra", "kind"), HARMLESS.values(), ids=HARMLESS.keys())
def test_a_harmless_object_is_dropped_and_listed(tmp_path: Path, extra: object, kind: str, is_zip: bool) -> None:
    tensors, dropped = _convert(_save(tmp_path, {"state_dict": STATE, "extra": extra}, is_zip=is_zip))
    assert torch.equal(tensors["net.weight"], STATE["net.weight"])
    assert dropped == (f"extra ({kind})",)


def test_objects_are_listed_with_their_paths(tmp_path: Path) -> None:
    log = [{"loss": np.float32(1)}]
    _, dropped = _convert(_save(tmp_path, {"model": STATE | {"step": np.int64(5)}, "log": log, "array": np.arange(3)}))
    array = SCALAR.replace("scalar", "_reconstruct")
    assert dropped == (f"model.step ({SCALAR})", f"log.0.loss ({SCALAR})", f"array ({array})")


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_default_dictionaries_and_queues_are_read(tmp_path: Path, is_zip: bool) -> None:
    weights, losses = collections.defaultdict(list, STATE), collections.deque([1.0, 2.0], maxlen=5)
    tensors, dropped = _convert(_save(tmp_path, {"model": weights, "losses": losses}, is_zip=is_zip))
    assert (set(tensors), dropped) == ({"net.weight", "net.bias"}, ())


def test_an_object_that_holds_tensors_requires_a_key(tmp_path: Path) -> None:
    file, held = _save(tmp_path, {"model": STATE, "ema": Average()}), f"ema ({HERE}.Average, with 1 tensor)"
    assert f"also contains {held}, which is not read; set --key to one of: model (2 tensors)" in _refusal(file)
    tensors, dropped = _convert(file, key="model")
    assert (set(tensors), dropped) == ({"net.weight", "net.bias"}, (held,))


def test_weights_within_an_object_are_refused(tmp_path: Path) -> None:
    refusal = _refusal(_save(tmp_path, {"model": nn.Linear(2, 2)}))
    assert "no mapping of names to tensors, but model (torch.nn.modules.linear.Linear, with 2 tensors)" in refusal


def test_the_command_lists_what_was_dropped(tmp_path: Path) -> None:
    file = _save(tmp_path, {"model": STATE, "args": argparse.Namespace(lr=1)})
    done = CliRunner().invoke(convert_command, [str(file), "--out", str(tmp_path / "w.safetensors")])
    assert done.exit_code == 0
    assert done.output.endswith("  dropped     args (argparse.Namespace)\n")


class Calling:
    """Would call a function if it were unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def _hostile(ran: Path) -> dict[str, Calling]:
    return {
        "os.system": Calling(os.system, f"touch {ran}"),
        "eval": Calling(eval, f"open({str(ran)!r}, 'w')"),
        "exec": Calling(exec, f"open({str(ran)!r}, 'w')"),
        "subprocess": Calling(subprocess.check_call, ["touch", str(ran)]),
        "open": Calling(io.open, str(ran), "w"),
        "getattr": Calling(getattr, Calling(__import__, "os"), "system"),
        "torch.hub": Calling(torch.hub.load, str(ran)),
    }


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", list(_hostile(Path())))
def test_a_hostile_object_runs_nothing_and_is_refused(tmp_path: Path, name: str, is_zip: bool) -> None:
    file = _save(tmp_path, {"model": STATE, "args": _hostile(tmp_path / "ran")[name]}, is_zip=is_zip)
    assert "reading those could run code" in _refusal(file)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_function_is_never_called(tmp_path: Path) -> None:
    _, dropped = _convert(_save(tmp_path, {"model": STATE, "args": Calling(np.save, str(tmp_path / "ran"), 5)}))
    assert dropped == ("args (numpy.save)",)
    assert list(tmp_path.glob("ran*")) == []


def _save_pickle(folder: Path, pickled: bytes) -> Path:
    """Write a checkpoint whose pickle no tool writes."""
    file = _save(folder, STATE)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
    return file


DAMAGED = {
    "too many names": b"\x80\x02(" + b"".join(b"ca\nb%d\n" % i for i in range(200)) + b"t.",
    "deep nesting": b"\x80\x02" + b"(" * 5000 + b"t" * 5000 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "many lists in themselves": b"\x80\x02]q\x00(" + b"h\x00" * 9 + b"e.",
    "a state of a mapping": b"\x80\x02}}b.",
    "an empty stack": b"\x80\x02R.",
    "a type with a null": b"\x80\x02ca\nb\x00c\n.",
    "a subclass of tensors": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ca\nb\nca\nc\n)}tR.",
    "another protocol": pickle.dumps({"a": Config}, protocol=4),
}


@pytest.mark.parametrize("pickled", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_no_tool_writes_is_refused_in_a_sentence(tmp_path: Path, pickled: bytes) -> None:
    assert _refusal(_save_pickle(tmp_path, pickled))
