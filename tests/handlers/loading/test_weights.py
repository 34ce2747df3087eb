"""Weights: only matching safetensors are loaded; messages have the command to run."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from fount.cli.main import main
from handlers.loading.custom_source import build_custom_class
from handlers.loading.weights import WeightsError, load_weights
from tests.handlers.custom_models import Trap


def _module() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def _refusal(tmp_path: Path, tensors: dict[str, Tensor], module: nn.Module | None = None) -> str:
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(module or _module(), tmp_path / "weights.safetensors")
    return str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "generator.pt", "model.bin"])
@pytest.mark.parametrize("how", ["zip", "legacy", "plain"])
def test_a_pickle_is_never_read_whatever_it_is_called(tmp_path: Path, name: str, how: str) -> None:
    file, trap = tmp_path / name, Trap(tmp_path / "ran")
    if how == "plain":
        file.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, file, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError) as caught:
        load_weights(_module(), file)
    out = "converted.safetensors" if name == "weights.safetensors" else "weights.safetensors"
    assert str(caught.value) == (
        f"{name} is a pickle, as torch.save writes it; reading one can run code, so it is never read "
        f"here; run `fount convert {file} --out {tmp_path}/{out}`, and set weights.file to {out}"
    )
    assert not (tmp_path / "ran").exists()


def test_a_program_for_weights_is_refused(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"is a torchscript program, not weights; set family.name to torchscript"):
        load_weights(_module(), tmp_path / "weights.safetensors")


@pytest.mark.parametrize("data", [b"", b"no", b"PK\x03\x04 and no more", b"\x08\0\0\0\0\0\0\0{}"], ids=len)
def test_a_damaged_file_is_reported(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "weights.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_weights(_module(), tmp_path / "weights.safetensors")


def test_a_truncated_file_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(_module().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_weights(_module(), file)


@pytest.mark.parametrize("prefix", ["module.", "generator.", "model.net."])
def test_a_prefix_of_all_names_is_reported_with_the_command(tmp_path: Path, prefix: str) -> None:
    result = _refusal(tmp_path, {prefix + name: tensor for name, tensor in _module().state_dict().items()})
    assert result.endswith(
        f"; all names begin with {prefix}, the module's do not: run `fount convert "
        f"{tmp_path}/weights.safetensors --out {tmp_path}/stripped.safetensors --strip-prefix {prefix}`, "
        "and set weights.file to that"
    )


@pytest.mark.parametrize(("prefix", "other"), [("module.", "n_averaged"), ("generator.", "discriminator.0.weight")])
def test_a_prefix_of_all_required_names_is_reported(tmp_path: Path, prefix: str, other: str) -> None:
    state = {prefix + name: tensor for name, tensor in _module().state_dict().items()}
    result = _refusal(tmp_path, state | {other: torch.tensor(1)})
    assert f"; the file has all names of the module after {prefix}: run `fount convert {tmp_path}/" in result
    command = re.search("`fount (convert .*)`", result)
    assert command is not None
    assert CliRunner().invoke(main, command[1].split()).exit_code == 0
    load_weights(_module(), tmp_path / "stripped.safetensors")


def test_a_custom_class_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "generator.py").write_text("from torch import nn\nclass Mine(nn.Linear): pass\n")
    module = build_custom_class(tmp_path / "generator.py", "Mine", {"in_features": 2, "out_features": 2})
    remedy = "; make generator.py's class Mine and family.config match these weights"
    assert _refusal(tmp_path, {"other": torch.ones(1)}, module).endswith(remedy)
    assert _refusal(tmp_path, {"weight": torch.ones(3, 2), "bias": torch.ones(2)}, module).endswith(remedy)


def test_five_wrong_shapes_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    result = _refusal(tmp_path, {f"{i}.weight": torch.ones(3) for i in range(6)}, nn.Sequential(*_norms(6)))
    assert result.startswith("weights.safetensors: 0.weight has shape (3,), the module has (2,); 1.weight has shape")
    remedy = "make the card's family and configuration match"
    assert result.endswith(f"4.weight has shape (3,), the module has (2,); 1 more; {remedy}")


def _norms(count: int) -> list[nn.Module]:
    return [nn.RMSNorm(2) for _ in range(count)]


def test_five_missing_names_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    result = _refusal(tmp_path, {"1.weight": torch.ones(2)})
    assert result.startswith(
        "weights.safetensors lacks 0.bias, 0.weight, 1.bias, 1.num_batches_tracked, 1.running_mean and 1 more;"
    )


@pytest.mark.parametrize(
    ("name", "tensor", "result"),
    [
        ("0.weight", torch.ones(2, 3, dtype=torch.int64), "whole numbers (torch.int64), the module has floats"),
        ("1.num_batches_tracked", torch.tensor(1.0), "floats (torch.float32), the module has whole numbers"),
        ("0.bias", torch.ones(2, dtype=torch.bool), "truth values (torch.bool), the module has floats"),
    ],
    ids=["floats", "whole", "truths"],
)
def test_another_element_type_is_reported(tmp_path: Path, name: str, tensor: Tensor, result: str) -> None:
    assert result in _refusal(tmp_path, _module().state_dict() | {name: tensor})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats_are_cast_to_the_modules_type(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in _module().state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    module = _module()
    load_weights(module, tmp_path / "weights.safetensors")
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, state["0.weight"].float())


@pytest.mark.parametrize(("dtype", "lines"), [(torch.float64, 1), (torch.float16, 0)], ids=["rounded", "exact"])
def test_rounding_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: torch.dtype, lines: int) -> None:
    save_file({"weight": torch.ones(1, 1, dtype=dtype), "bias": torch.ones(1)}, tmp_path / "weights.safetensors")
    load_weights(nn.Linear(1, 1), tmp_path / "weights.safetensors")
    assert len(caplog.records) == lines


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.b.weight = self.a.weight


def test_a_tensor_with_two_names_may_be_stored_once(tmp_path: Path) -> None:
    trained, module = Tied(), Tied()
    save_model(trained, str(tmp_path / "weights.safetensors"))
    load_weights(module, tmp_path / "weights.safetensors")
    assert torch.equal(module.b.weight, trained.a.weight)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


def test_an_infinite_mask_of_the_module_is_accepted(tmp_path: Path) -> None:
    save_file(Masked().state_dict(), tmp_path / "weights.safetensors")
    load_weights(Masked(), tmp_path / "weights.safetensors")


def test_another_infinity_is_refused(tmp_path: Path) -> None:
    result = _refusal(tmp_path, OrderedDict(mask=torch.tensor([float("-inf"), 0.0])), Masked())
    assert re.search("mask holds NaN or infinite values; train the model again", result)
