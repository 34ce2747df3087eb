"""Converting: checkpoints become safetensors, and nothing of them but tensors is ever read."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from handlers.cli.convert import convert as convert_command
from handlers.loading.weights import load_weights
from handlers.packaging.convert import ConvertError, convert
from tests.handlers.custom_models import Trap

STATE = OrderedDict({"net.weight": torch.arange(6.0).reshape(2, 3), "net.bias": torch.ones(2)})


def _save(folder: Path, checkpoint: object, **options: Any) -> Path:
    torch.save(checkpoint, folder / "last.ckpt", **options)
    return folder / "last.ckpt"


def _convert(file: Path, **options: Any) -> dict[str, Tensor]:
    convert(file, file.parent / "out.safetensors", **options)
    return load_file(file.parent / "out.safetensors")


def _refusal(file: Path, **options: Any) -> str:
    with pytest.raises(ConvertError) as caught:
        convert(file, file.parent / "out.safetensors", **options)
    assert not (file.parent / "out.safetensors").exists()
    return str(caught.value)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_state_dict_is_written_as_it_is(tmp_path: Path, is_zip: bool) -> None:
    written = _convert(_save(tmp_path, STATE, _use_new_zipfile_serialization=is_zip))
    assert list(written) == ["net.bias", "net.weight"]
    assert torch.equal(written["net.weight"], STATE["net.weight"])


def test_converted_weights_load(tmp_path: Path) -> None:
    trained, module = (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
    )
    convert(_save(tmp_path, {"state_dict": trained.state_dict(), "epoch": 3}), tmp_path / "weights.safetensors")
    load_weights(module, tmp_path / "weights.safetensors")
    assert torch.equal(module[0].weight, trained[0].weight)


def test_the_only_state_dict_is_found_next_to_an_optimisers(tmp_path: Path) -> None:
    optimiser = torch.optim.Adam([nn.Parameter(torch.ones(3))])
    optimiser.param_groups[0]["params"][0].grad = torch.ones(3)
    optimiser.step()
    checkpoint = {"epoch": 3, "best": torch.tensor(0.5), "model": STATE, "optimizer": optimiser.state_dict()}
    assert convert(_save(tmp_path, checkpoint), tmp_path / "out.safetensors").key == "model"


def test_several_models_are_listed_with_their_counts(tmp_path: Path) -> None:
    file = _save(tmp_path, {"models": {"g": STATE, "d": {"w": torch.ones(1)}}})
    result = f"{file} contains several models; set --key to one of: models.g (2 tensors), models.d (1 tensors)"
    assert _refusal(file) == result


def test_a_key_selects_one_of_several_models(tmp_path: Path) -> None:
    file = _save(tmp_path, {"models": {"g": STATE, "d": {"w": torch.ones(1)}}})
    assert list(_convert(file, key="models.d")) == ["w"]


def test_an_absent_key_is_refused(tmp_path: Path) -> None:
    file = _save(tmp_path, {"g": STATE})
    assert _refusal(file, key="ema") == f"{file} has no tensors at 'ema'; set --key to one of: g (2 tensors)"


@pytest.mark.parametrize(
    ("wrapper", "stripped"),
    [("module.", ("module.",)), ("_orig_mod.", ("_orig_mod.",)), ("module._orig_mod.", ("module.", "_orig_mod."))],
)
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, wrapper: str, stripped: tuple[str, ...]) -> None:
    file = _save(tmp_path, {wrapper + name: tensor for name, tensor in STATE.items()})
    assert convert(file, tmp_path / "out.safetensors").stripped == stripped
    assert set(load_file(tmp_path / "out.safetensors")) == {"net.weight", "net.bias"}


def test_an_averaged_model_loses_its_prefix_and_its_counter(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    conversion = convert(_save(tmp_path, averaged.state_dict()), tmp_path / "out.safetensors")
    assert (conversion.stripped, conversion.skipped) == (("module.",), ("n_averaged",))
    assert set(load_file(tmp_path / "out.safetensors")) == {"weight", "bias"}


def test_a_wrappers_prefix_may_be_requested(tmp_path: Path) -> None:
    file = _save(tmp_path, {"module.a": torch.ones(1), "n_averaged": torch.tensor(3)})
    conversion = convert(file, tmp_path / "out.safetensors", prefix="module.")
    assert (conversion.tensors, conversion.stripped, conversion.skipped) == (1, ("module.",), ("n_averaged",))


def test_a_discriminator_in_the_checkpoint_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _convert(_save(tmp_path, {"generator.a": torch.ones(1), "discriminator.a": torch.ones(1)}))
    assert "names begin with discriminator., generator.; to keep the generator alone" in caplog.text
    assert "--strip-prefix generator." in caplog.text


def test_layers_of_one_model_are_not_taken_for_several(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _convert(_save(tmp_path, {"encoder.a": torch.ones(1), "decoder.a": torch.ones(1)}))
    assert caplog.text == ""


def test_a_prefix_keeps_only_its_names(tmp_path: Path) -> None:
    file = _save(tmp_path, {"g.net.weight": torch.ones(1), "d.net.weight": torch.zeros(1)})
    conversion = convert(file, tmp_path / "out.safetensors", prefix="g.")
    assert (conversion.tensors, conversion.stripped, conversion.skipped) == (1, ("g.",), ("d.net.weight",))
    assert load_file(tmp_path / "out.safetensors")["net.weight"].item() == 1.0


def test_a_prefix_without_names_is_refused(tmp_path: Path) -> None:
    file = _save(tmp_path, {"g.a": torch.ones(1), "d.b": torch.ones(1)})
    assert _refusal(file, prefix="f.") == f"{file} has no names that continue after 'f.'; they begin with d., g."


def test_entries_that_are_no_tensors_are_skipped_and_listed(tmp_path: Path) -> None:
    conversion = convert(_save(tmp_path, STATE | {"epoch": 3, "note": "x"}), tmp_path / "out.safetensors")
    assert conversion.skipped == ("epoch", "note")


def test_tensors_that_share_memory_are_written_out(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    written = _convert(_save(tmp_path, {"a": shared, "b": shared, "c": shared[1:], "d": shared.reshape(2, 2).T}))
    assert {name: tensor.tolist() for name, tensor in written.items()} == {
        "a": [0, 1, 2, 3], "b": [0, 1, 2, 3], "c": [1, 2, 3], "d": [[0, 2], [1, 3]],
    }  # fmt: skip


def test_safetensors_may_be_converted_to_strip_a_prefix(tmp_path: Path) -> None:
    save_file({"g.a": torch.ones(1)}, tmp_path / "in.safetensors")
    assert list(_convert(tmp_path / "in.safetensors", prefix="g.")) == ["a"]


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, is_zip: bool) -> None:
    file = _save(tmp_path, {"model": STATE, "args": Trap(tmp_path / "ran")}, _use_new_zipfile_serialization=is_zip)
    result = _refusal(file)
    assert "and reading those could run code; where it was trained, save the weights alone" in result
    assert "save_file(model.state_dict()" in result
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused_with_the_names_it_imports(tmp_path: Path) -> None:
    assert "torch.nn.modules.linear.Linear" in _refusal(_save(tmp_path, nn.Linear(1, 1)))


@pytest.mark.parametrize("checkpoint", [{"epoch": 3}, [1, 2], torch.ones(3)], ids=["no tensors", "a list", "a tensor"])
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path: Path, checkpoint: object) -> None:
    assert "contains no mapping of names to tensors" in _refusal(_save(tmp_path, checkpoint))


def test_a_program_is_refused_with_how_to_serve_it(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(1, 1)).save(tmp_path / "g.pt")
    result = "is a whole program and no checkpoint; serve it as it is: weights.file g.pt, family.name torchscript"
    assert result in _refusal(tmp_path / "g.pt")


@pytest.mark.parametrize("kept", [0, 3, 100, -30])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, kept: int) -> None:
    file = _save(tmp_path, STATE)
    file.write_bytes(file.read_bytes()[:kept])
    assert _refusal(file).endswith("copy it or save it again")


def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = _save(tmp_path, {"a": torch.eye(2), "b": torch.eye(2).to_sparse()})
    assert _refusal(file).endswith("b is sparse or quantised; save it as a plain tensor")


def test_a_checkpoint_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.loading.memory.available_bytes", lambda: 10)
    assert "of memory to load" in _refusal(_save(tmp_path, STATE))


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").write_bytes(b"precious")
    with pytest.raises(ConvertError, match="exists; name another file, or add --force"):
        convert(_save(tmp_path, STATE), tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == b"precious"


def test_a_file_is_never_converted_onto_itself(tmp_path: Path) -> None:
    file = _save(tmp_path, STATE)
    with pytest.raises(ConvertError, match=r"exists; name another file$"):
        convert(file, file, force=True)


def _run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(convert_command, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_the_command_prints_a_summary(tmp_path: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in STATE.items()}
    file, out = _save(tmp_path, {"state_dict": wrapped | {"note": "x"}}), tmp_path / "w.safetensors"
    status, output = _run(file, "--out", out)
    size = out.stat().st_size
    assert (status, output.splitlines()) == (
        0,
        [f"{out}: 2 tensors, {size} bytes", "  from        state_dict", "  stripped    module.", "  skipped     note"],
    )


def test_the_command_replaces_a_file_when_forced(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"old")
    assert _run(_save(tmp_path, STATE), "--out", tmp_path / "w.safetensors", "--force")[0] == 0
    assert set(load_file(tmp_path / "w.safetensors")) == {"net.weight", "net.bias"}


def test_the_command_takes_key_and_prefix(tmp_path: Path) -> None:
    file = _save(tmp_path, {"a": {"g.w": torch.ones(1)}, "b": STATE})
    assert _run(file, "--out", tmp_path / "w.safetensors", "--key", "a", "--strip-prefix", "g.")[0] == 0
    assert list(load_file(tmp_path / "w.safetensors")) == ["w"]


def test_the_command_reports_errors_in_a_sentence(tmp_path: Path) -> None:
    status, output = _run(_save(tmp_path, nn.Linear(1, 1)), "--out", tmp_path / "w.safetensors")
    assert (status, output.startswith("Error: "), "Traceback" in output) == (1, True, False)


def test_an_output_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    status, output = _run(_save(tmp_path, STATE), "--out", tmp_path / "absent" / "w.safetensors")
    assert status == 1
    assert "name another file or free some space" in output


def test_the_commands_help_has_an_example() -> None:
    assert "fount convert last.ckpt --key state_dict --strip-prefix generator." in _run("--help")[1]
