"""`fount new --from-diffusers`: a folder that diffusers saved is packed, checked and served."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from handlers.cards.card import Card, load_card
from handlers.checks.registry import run_checks
from handlers.checks.subject import Subject
from handlers.cli.new import new
from handlers.execution.pixels import floats_to_uint8
from handlers.loading.build import BuildError, build_module
from handlers.models.diffusers_unet import DiffusersUnet
from handlers.packaging.pack import pack
from handlers.settings import Settings
from handlers.worker.worker import Worker
from tests.handlers.diffusers_models.saved import SIZE, draw_with_diffusers, make_unet, noise_of, save_pipeline
from tests.handlers.planted import find
from tests.handlers.stepping_toys import call, draw_preempted, values_of
from tests.handlers.toys import sample_item, send

CLASSES = ("cat", "dog", "eel")
LABELS = (0, 1, 2, 2, 1)
COUNT = len(LABELS)
LITTLE_NOISE: dict[str, Any] = {"beta_end": 0.002}
"""Untrained networks amplify rounding where there is little signal, beyond the tolerance of golden samples."""


def run(source: Path, store: Path, *options: str) -> Result:
    return CliRunner().invoke(new, ["ddpm", "--from-diffusers", str(source), "--model-store", str(store), *options])


def create(source: Path, store: Path, *options: str) -> Card:
    result = run(source, store, *options)
    assert result.exit_code == 0, result.output
    return load_card(store / "ddpm")


def serve(folder: Path, at: Path) -> Worker:
    """Pack a model, unpack it as TorchServe does, and load it."""
    pack(folder, at)
    with zipfile.ZipFile(at / "ddpm-1.0.mar") as archive:
        archive.extractall(at / "unpacked")
    worker = Worker.load(at / "unpacked", {})
    assert worker.model.engine is not None, worker.model.reason
    return worker


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of DDPM with three classes."""
    return save_pipeline(tmp_path_factory.mktemp("saved") / "pipeline", 3, DDPMScheduler(**LITTLE_NOISE))


@pytest.fixture
def _unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out golden samples, which take seconds."""
    monkeypatch.setattr("handlers.scaffold.diffusers_model.record_golden", lambda *_arguments: None)


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    create(source, store, "--classes", ",".join(CLASSES))
    return store / "ddpm"


@pytest.fixture(scope="module")
def worker(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return serve(made, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """An unconditional model of 20 noise levels that predicts v, saved with DDIM's configuration."""
    home = tmp_path_factory.mktemp("plain")
    scheduler = DDIMScheduler(num_train_timesteps=20, beta_end=0.2, prediction_type="v_prediction")
    create(save_pipeline(home / "pipeline", 0, scheduler), home)
    return serve(home / "ddpm", home)


def test_the_folder_has_card_weights_golden_samples_and_steps(made: Path) -> None:
    names = ["README.md", "golden.safetensors", "model.yaml", "weights.safetensors"]
    assert sorted(file.name for file in made.iterdir()) == names


def test_the_card_has_what_the_configuration_says(made: Path) -> None:
    card = load_card(made)
    assert (card.sample.shape, card.sample.value_range) == ((SIZE, SIZE, 1), (-1.0, 1.0))
    assert (card.classes, card.draw_steps, card.limits.max_exec_batch) == (CLASSES, 50, 32)
    steps, eta = card.parameters["steps"], card.parameters["eta"]
    assert (steps.min, steps.max, steps.default) == (1, 1000, 50)
    assert (eta.min, eta.max, eta.default) == (0, 1, 0)
    assert "# Steps of a draw when a request sets none" in (made / "model.yaml").read_text()


def test_the_weights_are_those_of_the_network(made: Path) -> None:
    written, expected = load_file(made / "weights.safetensors"), make_unet(3).state_dict()
    assert written.keys() == {f"unet.{name}" for name in expected}
    assert all(torch.equal(written[f"unet.{name}"], tensor) for name, tensor in expected.items())


def test_sixteen_golden_samples_are_recorded(made: Path) -> None:
    with safe_open(made / "golden.safetensors", framework="np") as stream:
        assert stream.get_tensor("images").shape == (16, SIZE, SIZE, 1)


@pytest.mark.slow
def test_every_check_passes(made: Path, tmp_path: Path) -> None:
    subject = Subject(folder=made, settings=Settings(), picture=tmp_path / "check.png", record=False)
    states = {finding.check: finding.state for finding in run_checks(subject)}
    assert {check for check, state in states.items() if state == "failed"} == set()
    assert (states["rows"], states["deterministic"], states["golden"]) == ("passed",) * 3


@pytest.mark.slow
def test_steps_that_mix_rows_are_found(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = DiffusersUnet.advance

    def advance_mixed(self: DiffusersUnet, state: torch.Tensor, *others: Any) -> torch.Tensor:
        after = advance(self, state, *others)
        return after if len(state) == 1 else after + 0.1 * after.mean(dim=0)

    monkeypatch.setattr(DiffusersUnet, "advance", advance_mixed)
    assert find(made, "rows").state == "failed"


def test_every_batch_size_gives_the_same_rows(worker: Worker) -> None:
    assert worker.model.engine is not None
    assert worker.model.engine.profile.exec_batch_sizes == (1, 2, 4, 8, 16, 32)


def test_a_worker_draws_the_pictures_of_diffusers(worker: Worker) -> None:
    (data,) = values_of(send(worker, call(sample_item(3, 0, COUNT, LABELS), steps=10)))
    expected = draw_with_diffusers(
        make_unet(3), DDIMScheduler(**LITTLE_NOISE), noise_of(COUNT), torch.tensor(LABELS), 10
    )
    compare(data, expected)


def test_an_unconditional_worker_draws_the_pictures_of_diffusers(plain: Worker) -> None:
    (data,) = values_of(send(plain, call(sample_item(3, 0, COUNT, ()))))
    scheduler = DDIMScheduler(num_train_timesteps=20, beta_end=0.2, prediction_type="v_prediction")
    compare(data, draw_with_diffusers(make_unet(), scheduler, noise_of(COUNT), None, 20))


def compare(data: bytes, expected: torch.Tensor) -> None:
    """Compare pictures within the tolerance of golden samples."""
    found = np.frombuffer(data, "<f4").reshape(COUNT, SIZE, SIZE, 1)
    levels = [floats_to_uint8(each, (-1.0, 1.0)).astype(int) for each in (found, expected.permute(0, 2, 3, 1).numpy())]
    assert np.abs(levels[0] - levels[1]).max() <= 2


@pytest.mark.parametrize("limits", [[1], [2, 1], [3], [4]], ids=str)
def test_a_preempted_draw_is_the_same(worker: Worker, limits: list[int]) -> None:
    item = sample_item(3, 0, COUNT, LABELS)
    assert draw_preempted(worker, [item], limits, 5) == values_of(send(worker, call(item, steps=5)))


@pytest.mark.usefixtures("_unrecorded")
def test_classes_are_numbers_unless_named(source: Path, tmp_path: Path) -> None:
    assert create(source, tmp_path).classes == ("0", "1", "2")


def bare(home: Path, *, inside: bool) -> Path:
    """A network alone, with its scheduler's configuration in the same folder or next to it."""
    make_unet().save_pretrained(home / "net")
    DDIMScheduler(num_train_timesteps=20, beta_end=0.2).save_pretrained(home / "net" if inside else home / "scheduler")
    return home / "net"


@pytest.mark.usefixtures("_unrecorded")
@pytest.mark.parametrize("inside", [True, False], ids=["same folder", "next to it"])
def test_a_network_alone_needs_its_schedulers_configuration(tmp_path: Path, inside: bool) -> None:
    assert create(bare(tmp_path, inside=inside), tmp_path / "store").parameters["steps"].max == 20


@pytest.mark.usefixtures("_unrecorded")
def test_a_rectangle_is_drawn(tmp_path: Path) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=4, beta_end=0.5)
    saved = save_pipeline(tmp_path / "saved", 0, scheduler, sample_size=(4, 12), in_channels=3, out_channels=3)
    assert create(saved, tmp_path).sample.shape == (4, 12, 3)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda at: (at / WEIGHTS).rename(at / "unet/diffusion_pytorch_model.bin"),
                     "is a pickle, and loading one could run code; convert it: `fount convert", id="pickle"),
        pytest.param(lambda at: (at / WEIGHTS).rename(at / "unet/diffusion_pytorch_model.fp16.safetensors"),
                     "to serve the variant diffusion_pytorch_model.fp16.safetensors, copy it", id="variant"),
        pytest.param(lambda at: (at / WEIGHTS).unlink(), "is missing; save the model again", id="no weights"),
        pytest.param(lambda at: torch.save({}, at / WEIGHTS), "is no safetensors file, whatever its name",
                     id="renamed pickle"),
        pytest.param(lambda at: (at / "unet/config.json").unlink(), "config.json is missing", id="no config"),
        pytest.param(lambda at: (at / "unet/config.json").write_text("{"), "cannot be read: Expecting", id="no json"),
        pytest.param(lambda at: (at / "unet/config.json").write_text("[]"), "is no JSON object", id="list"),
        pytest.param(lambda at: (at / "scheduler/scheduler_config.json").unlink(), "scheduler_config.json is missing; "
                     "copy it from the pipeline", id="no scheduler"),
        pytest.param(lambda at: edit(at / "scheduler/scheduler_config.json", _class_name="PNDMScheduler"),
                     "scheduler_config.json: scheduler._class_name is 'PNDMScheduler': must be DDPM", id="scheduler"),
        pytest.param(lambda at: edit(at / "unet/config.json", out_channels=2), "out_channels 2: must be equal",
                     id="channels"),
        pytest.param(lambda at: edit(at / "unet/config.json", _class_name="UNet2DConditionModel"),
                     "names UNet2DConditionModel, which needs the states of a text encoder", id="condition"),
        pytest.param(lambda at: edit(at / "model_index.json", unet=["diffusers", "UNet1DModel"]),
                     "model_index.json names UNet1DModel, and not UNet2DModel", id="another network"),
        pytest.param(lambda at: edit(at / "model_index.json", _class_name="LDMPipeline", vqvae=["diffusers", "VQ"]),
                     "denoises the latents of another one (vqvae), not pictures", id="latent"),
        pytest.param(lambda at: edit(at / "unet/config.json", layers_per_block=2), "cannot load it|the weights lack",
                     id="other weights"),
        pytest.param(lambda at: edit(at / "unet/config.json", depth=2), "does not know: depth", id="unknown key"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_served_is_refused_in_words(tmp_path: Path, spoil: Any, words: str) -> None:
    source = save_pipeline(tmp_path / "saved")
    spoil(source)
    result = run(source, tmp_path / "store")
    assert result.exit_code == 1
    assert any(each in result.output for each in words.split("|")), result.output
    assert not (tmp_path / "store").exists() or list((tmp_path / "store").iterdir()) == []


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    source = save_pipeline(tmp_path / "saved")
    edit(source / "unet/config.json", out_channels=2, class_embed_type="identity")
    edit(source / "scheduler/scheduler_config.json", beta_schedule="sigmoid", thresholding=True)
    (source / WEIGHTS).unlink()
    lines = run(source, tmp_path).output.splitlines()
    assert len([line for line in lines if line.startswith("  ")]) == 5


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = save_pipeline(tmp_path / "saved")
    tensors = load_file(source / WEIGHTS)
    tensors["conv_in.bias"][0] = float("nan")
    save_file(tensors, source / WEIGHTS)
    assert "holds NaN or infinite values" in run(source, tmp_path / "store").output


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--classes", "cat"), 1, "--classes names 1, the model has 3 (num_class_embeds); name each"),
        (("--size", "8"), 2, "defines --size itself; leave them out"),
        (("--labels", "3"), 2, "defines --labels itself; name classes with --classes"),
    ],
)
def test_options_that_contradict_the_model_are_refused(
    source: Path, tmp_path: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    result = run(source, tmp_path, *options)
    assert (result.exit_code, words in " ".join(result.output.split())) == (code, True), result.output


def test_classes_need_a_model() -> None:
    result = CliRunner().invoke(new, ["ddpm", "--classes", "cat"])
    assert (result.exit_code, "name the classes of a new model with --labels" in result.output) == (2, True)


@pytest.fixture
def _no_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)


@pytest.mark.usefixtures("_no_diffusers")
def test_a_worker_without_diffusers_says_what_to_install(made: Path) -> None:
    with pytest.raises(BuildError, match=r"needs the package diffusers.*pip install 'fount\[diffusers\]'"):
        build_module(load_card(made), made)


@pytest.mark.usefixtures("_no_diffusers")
def test_a_new_folder_without_diffusers_says_what_to_install(source: Path, tmp_path: Path) -> None:
    assert "pip install 'fount[diffusers]'" in run(source, tmp_path).output


def test_other_archives_do_not_contain_it(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    with zipfile.ZipFile(tmp_path / "small-1.0.mar") as archive:
        assert not [name for name in archive.namelist() if "diffusers" in name]
