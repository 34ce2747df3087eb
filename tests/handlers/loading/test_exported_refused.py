"""Exported programs in which something was planted: refused before torch reads them, so that no code of a file runs."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from handlers.cards.card import write_card
from handlers.loading.program import load_program
from tests.handlers.custom_models import Generator, Trap, inputs, program_card, reason_of, save_exported


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An exported program."""
    save_exported(tmp_path / "program.pt2", Generator())
    return tmp_path / "program.pt2"


def _reason(folder: Path) -> str:
    write_card(program_card("exported", "program.pt2"), folder)
    return reason_of(folder)


Members = dict[str, bytes]


def _plant(file: Path, change: Callable[[Members], object]) -> None:
    """Change members of an exported program."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _in(members: Members, end: str) -> str:
    return next(name for name in members if name.endswith(end))


def _edit(members: Members, end: str, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(members[_in(members, end)])
    change(document)
    members[_in(members, end)] = json.dumps(document).encode()


def _trap(folder: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Trap(folder / "ran"), buffer)
    return buffer.getvalue()


def _code(folder: Path) -> str:
    return f"__import__('pathlib').Path({str(folder / 'ran')!r}).touch()"


def _plant_inputs(members: Members, folder: Path) -> None:
    members[_in(members, "sample_inputs/model.pt")] = _trap(folder)


def _plant_weight(members: Members, folder: Path) -> None:
    members[_in(members, "weight_0")] = _trap(folder)
    _edit(members, "weights_config.json", lambda d: next(iter(d["config"].values())).update(use_pickle=True))


def _plant_object(members: Members, folder: Path, name: str = "opaque_obj_0") -> None:
    config = _in(members, "constants_config.json")
    members[config.replace("model_constants_config.json", name)] = _trap(folder)
    payload = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    _edit(members, "constants_config.json", lambda d: d["config"].update(thing=payload))


def _plant_expression(members: Members, folder: Path) -> None:
    def change(model: dict[str, Any]) -> None:
        sizes = model["graph_module"]["graph"]["tensor_values"]["z"]["sizes"]
        sizes[1] = {"as_expr": {"expr_str": _code(folder), "hint": {"as_int": 6}}}

    _edit(members, "models/model.json", change)


def _plant_metadata(members: Members, folder: Path) -> None:
    """An expression under a key whose texts are only shown, elsewhere."""

    def change(model: dict[str, Any]) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        size = {"as_expr": {"expr_str": _code(folder), "hint": {"as_int": 6}}}
        values["metadata"] = values["z"] | {"sizes": [size]}

    _edit(members, "models/model.json", change)


def _plant_operator(members: Members, folder: Path) -> None:
    def change(model: dict[str, Any]) -> None:
        node = model["graph_module"]["graph"]["nodes"][0]
        text = {"as_string": f"touch {folder / 'ran'}"}
        node |= {"target": "torch.os.system", "inputs": [{"name": "", "arg": text, "kind": 1}]}

    _edit(members, "models/model.json", change)


def _plant_argument(members: Members, folder: Path) -> None:
    """An operator that is no target: one that calls what it is given would call it."""

    def change(model: dict[str, Any]) -> None:
        node = model["graph_module"]["graph"]["nodes"][0]
        node["inputs"] = [{"name": "", "arg": {"as_operator": "torch.os.system"}, "kind": 1}]

    _edit(members, "models/model.json", change)


def _plant_target(target: str) -> Callable[[Members, Path], None]:
    def _plant_it(members: Members, folder: Path) -> None:
        _edit(members, "models/model.json", lambda d: d["graph_module"]["graph"]["nodes"][0].update(target=target))

    return _plant_it


def _plant_name(members: Members, folder: Path) -> None:
    name = _in(members, "models/model.json")
    members[name] = members[name].replace(b'"name": "z"', json.dumps({"name": f"z={_code(folder)}"})[1:-1].encode())


def _plant_binary(members: Members, folder: Path) -> None:
    root = _in(members, "models/model.json").partition("/")[0]
    members[f"{root}/data/aotinductor/model/code.so"] = b"\x7fELF"


def _plant_old_format(members: Members, folder: Path) -> None:
    members |= {"version": b"8.20", "serialized_state_dict.pt": _trap(folder)}


@pytest.mark.parametrize(
    ("plant", "result"),
    [
        (_plant_inputs, "example inputs that are a pickle of more than tensors"),
        (_plant_weight, "embed.weight as a pickle"),
        (_plant_object, "the member data/constants/opaque_obj_0"),
        (_plant_expression, "as expr_str"),
        (_plant_metadata, "as expr_str"),
        (_plant_operator, "'torch.os.system' as target"),
        (_plant_argument, "'torch.os.system' as as_operator"),
        (_plant_target("torch.ops.higher_order.wrap"), "'torch.ops.higher_order.wrap' as target"),
        (_plant_target("torch.ops.aten.save.default"), "'torch.ops.aten.save.default' as target"),
        (_plant_name, "as name"),
        (_plant_binary, "the member data/aotinductor/model/code.so"),
    ],
    ids=lambda value: value.__name__.removeprefix("_plant_") if callable(value) else "",
)
def test_an_exported_program_that_would_run_code_is_refused(
    tmp_path: Path, file: Path, plant: Callable[[Members, Path], None], result: str
) -> None:
    _plant(file, lambda members: plant(members, tmp_path))
    reason = _reason(tmp_path)
    assert result in reason
    assert reason.endswith("serve it as family module with its weights")
    assert not (tmp_path / "ran").exists()


def test_a_program_of_the_old_format_is_refused(tmp_path: Path, file: Path) -> None:
    _plant(file, lambda members: _plant_old_format(members, tmp_path))
    assert "program.pt2 cannot be read as exported" in _reason(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_program_of_another_version_is_reported(tmp_path: Path, file: Path) -> None:
    _plant(file, lambda members: members.update({_in(members, "/archive_version"): b"9"}))
    assert _reason(tmp_path) == (
        "program.pt2 cannot be read as exported: RuntimeError: Saved archive version 9 does not match our current "
        "archive version 0.; save the program again with this version of torch, or copy the file again"
    )


def test_a_rewritten_program_without_planted_code_is_loaded(tmp_path: Path, file: Path) -> None:
    _plant(file, lambda members: None)
    assert load_program(file, "exported", most_rows=8)(*inputs(3)).shape == (3, 1, 4, 4)


@pytest.mark.parametrize("plant", [_plant_inputs, _plant_weight, _plant_expression])
def test_planted_code_would_run_without_the_check(
    tmp_path: Path, file: Path, plant: Callable[[Members, Path], None]
) -> None:
    _plant(file, lambda members: plant(members, tmp_path))
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        torch.export.load(file)
    assert (tmp_path / "ran").exists()
