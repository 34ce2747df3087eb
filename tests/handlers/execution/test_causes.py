"""The one error that explains a long text is found: in TorchScript's, in a dead process's, in a compiler's."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

from handlers.execution.causes import find_in_output
from handlers.execution.compiling import CompileError, translate_compile_errors
from handlers.execution.errors import cause_of, describe_error, remedy_for

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="it needs a machine without CUDA")
NO_CUDA = "it creates tensors on cuda, which this machine does not have"


class Reshaping(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        if z.shape[0] > 1:
            raise ValueError("too many rows\none is the most")
        return z.reshape(3, 7)


class OnCuda(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z + torch.zeros(6, device="cuda")


def error_of(module: nn.Module, rows: int = 1) -> Exception:
    with pytest.raises(Exception, match=r".*") as caught:
        module(torch.zeros(rows, 6))
    return caught.value


def script(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def test_an_error_of_torchscript_is_described_with_its_code() -> None:
    text = describe_error(error_of(script(Reshaping())))
    assert text.startswith("RuntimeError: shape '[3, 7]' is invalid for input of size 6 (test_causes.py, line ")
    assert text.endswith(": return z.reshape(3, 7))")


def test_an_exception_of_torchscript_keeps_its_kind_and_all_lines() -> None:
    assert describe_error(error_of(script(Reshaping()), 2)).startswith("ValueError: too many rows one is the most (")


@no_cuda
def test_a_missing_device_is_the_cause_instead_of_torchs_list_of_kernels() -> None:
    error = error_of(script(OnCuda()))
    assert describe_error(error).startswith(f"RuntimeError: {NO_CUDA} (test_causes.py, line ")
    assert 'torch.zeros(6, device="cuda"))' in describe_error(error)


@no_cuda
def test_a_missing_device_is_the_cause_in_python_too() -> None:
    assert describe_error(error_of(OnCuda())) == f"AssertionError: {NO_CUDA}"


@no_cuda
def test_the_remedy_for_a_missing_device_names_the_device_of_z() -> None:
    remedy = remedy_for(error_of(OnCuda()), "otherwise", is_program=True)
    assert remedy == (
        "create tensors on the device of z (device=z.device), and register constants as buffers, then save "
        "the program again from the module on the CPU, after module.cpu()"
    )


def test_other_errors_keep_their_remedy() -> None:
    assert remedy_for(error_of(Reshaping()), "otherwise") == "otherwise"


def test_source_code_in_an_error_is_no_part_of_its_cause() -> None:
    error = error_of(script(Reshaping()), 2)
    assert "shape" in str(error)
    assert "shape" not in cause_of(error).message


SCRIPTS = {
    "an error of several lines": ("raise ValueError('wrong\\n\\nSee page 3.\\n')", "ValueError: wrong See page 3."),
    "a chain": ("try:\n  1 / 0\nexcept ZeroDivisionError as e:\n  raise KeyError('a') from e", "KeyError: 'a'"),
    "an error without text": ("raise StopIteration", "StopIteration"),
    "no traceback": ("import sys; print('one\\ntwo', file=sys.stderr)", "two"),
    "nothing": ("", ""),
}  # fmt: skip


@pytest.mark.parametrize(("code", "cause"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_the_error_that_ended_a_process_is_found_in_its_output(code: str, cause: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert find_in_output(done.stderr) == cause


def test_a_compilers_first_error_is_named_instead_of_who_called_it() -> None:
    def backend(graph: object, inputs: object) -> None:
        raise RuntimeError("C++ compile error\n\nOutput:\nx.cpp:1: warning: old\nx.cpp:2: error: no omp.h\n")

    compiled = torch.compile(lambda x: x + 1, backend=backend)
    with pytest.raises(CompileError, match=r": x.cpp:2: error: no omp.h; set FOUNT"), translate_compile_errors():
        compiled(torch.zeros(1))
