"""Custom models: a file and its weights become a worker whose samples are the author's module's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fount.address import Addresses, Stream
from handlers.cards.card import Parameter, load_card, write_card
from handlers.cards.digests import model_digest
from handlers.worker.worker import Worker
from tests.handlers.custom_models import (
    CONDITIONAL,
    LATENT,
    UNCONDITIONAL,
    custom_card,
    draw,
    latents,
    reason_of,
    serve,
    write_custom,
)
from tests.handlers.toys import request, sample_item, send


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> tuple[Worker, torch.nn.Module]:
    place = tmp_path_factory.mktemp("conditional")
    module = write_custom(place / "own", CONDITIONAL, custom_card())
    assert module is not None
    return serve(place / "own", place), module


def test_a_sample_is_what_the_authors_module_gives(conditional: tuple[Worker, torch.nn.Module]) -> None:
    worker, module = conditional
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    expected = module.sample(latents(8), labels).permute(0, 2, 3, 1)
    np.testing.assert_allclose(draw(worker, count=8, labels=tuple(labels.tolist())), expected.detach(), atol=1e-6)


def test_a_sample_has_the_same_bytes_alone_and_co_batched(conditional: tuple[Worker, torch.nn.Module]) -> None:
    together = draw(conditional[0], count=24, labels=(2,))
    np.testing.assert_array_equal(draw(conditional[0], start=17, labels=(2,)), together[17:18])


def test_a_label_changes_the_sample(conditional: tuple[Worker, torch.nn.Module]) -> None:
    assert not np.array_equal(draw(conditional[0], labels=(0,)), draw(conditional[0], labels=(1,)))


def test_dropout_and_batch_norm_are_switched_to_evaluation(conditional: tuple[Worker, torch.nn.Module]) -> None:
    network = conditional[0].model.engine.network  # type: ignore[union-attr]
    assert not any(module.training for module in network.module.modules())


@pytest.mark.parametrize("size", [(32, 32, 3), (28, 28, 1), (17, 23, 4)], ids=["rgb", "mnist", "odd"])
def test_a_picture_may_have_any_size(tmp_path: Path, size: tuple[int, int, int]) -> None:
    write_custom(tmp_path / "own", UNCONDITIONAL, custom_card(size, classes=0))
    assert draw(serve(tmp_path / "own", tmp_path), count=3).shape == (3, *size)


def test_z_may_have_any_shape(tmp_path: Path) -> None:
    source = UNCONDITIONAL.replace("self.net(input)", "self.net(input.flatten(1))")
    card = dataclasses.replace(
        custom_card(classes=0), latent=dataclasses.replace(custom_card().latent, shape=(3, 2, 1))
    )
    write_custom(tmp_path / "own", source, card)
    plain = tmp_path / "plain"
    write_custom(plain / "own", UNCONDITIONAL, custom_card(classes=0))
    first, second = serve(tmp_path / "own", tmp_path), serve(plain / "own", plain)
    np.testing.assert_array_equal(draw(first, count=2), draw(second, count=2))


STEPS = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, height=4, width=4, channels=1):
        super().__init__()
        self.net = nn.Linear(6, 16)

    def sample(self, z, *, steps, noise, check_deadline, guidance_scale=1.0):
        for step in range(steps):
            check_deadline()
            z = 0.5 * z + 0.5 * noise(step)
        return guidance_scale * torch.tanh(self.net(z)).reshape(-1, 1, 4, 4) / 8
"""

PARAMETERS = {
    "steps": Parameter(min=1, max=9, default=2, description="Steps."),
    "guidance_scale": Parameter(min=0, max=8, default=None, description="Guidance."),
    "truncation": Parameter(min=0.5, max=4, default=None, description="Bounds z."),
}


@pytest.fixture(scope="module")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    place = tmp_path_factory.mktemp("steps")
    # Golden samples are drawn without parameters, so `steps` needs a default of the module's own there.
    write_custom(place / "own", STEPS.replace("*, steps,", "*, steps=2,").replace("noise,", "noise=None,"),
              custom_card(classes=0, parameters=PARAMETERS))  # fmt: skip
    return serve(place / "own", place)


def _draw_with(worker: Worker, **parameters: float) -> np.ndarray:  # type: ignore[type-arg]
    message = request(sample_item(labels=()))
    for name, value in parameters.items():
        setattr(message.parameters, name, value)
    return np.frombuffer(send(worker, message).items[0].value.data, np.float32)


@pytest.mark.parametrize(("name", "value"), [("steps", 3), ("guidance_scale", 2.0), ("truncation", 0.5)])
def test_a_parameter_the_module_takes_changes_the_sample(stepper: Worker, name: str, value: float) -> None:
    assert not np.array_equal(_draw_with(stepper), _draw_with(stepper, **{name: value}))


def test_the_noise_of_steps_depends_on_the_address(stepper: Worker) -> None:
    np.testing.assert_array_equal(draw(stepper, start=5), draw(stepper, count=16)[5:6])


def test_each_step_has_noise_of_its_own(stepper: Worker) -> None:
    z = latents(1)
    step = [torch.from_numpy(Addresses.of_range(1, 0, 1).normals(Stream.STEP, LATENT, step=k)) for k in (0, 1)]
    z = 0.25 * z + 0.25 * step[0] + 0.5 * step[1]
    network = stepper.model.engine.network  # type: ignore[union-attr]
    expected = torch.tanh(network.module.module.net(z)) / 8
    np.testing.assert_allclose(_draw_with(stepper), expected.detach()[0], atol=1e-6)


def test_a_required_parameter_gets_its_default_from_the_card(tmp_path: Path) -> None:
    write_custom(tmp_path, STEPS, custom_card(classes=0, parameters=PARAMETERS))
    assert "golden" in reason_of(tmp_path)  # everything before the golden samples went well


def test_the_digest_covers_the_authors_file(tmp_path: Path) -> None:
    write_custom(tmp_path, CONDITIONAL, custom_card())
    before = model_digest(load_card(tmp_path), tmp_path)
    (tmp_path / "generator.py").write_text(CONDITIONAL + "# another\n")
    assert model_digest(load_card(tmp_path), tmp_path) != before


@pytest.mark.parametrize("change", ["latent", "class_name"])
def test_the_digest_covers_what_only_custom_models_have(tmp_path: Path, change: str) -> None:
    write_custom(tmp_path, CONDITIONAL, custom_card())
    card = load_card(tmp_path)
    before = model_digest(card, tmp_path)
    other = {
        "latent": dataclasses.replace(card, latent=dataclasses.replace(card.latent, shape=(2, 3))),
        "class_name": dataclasses.replace(card, family=dataclasses.replace(card.family, class_name="Other")),
    }[change]
    assert model_digest(other, tmp_path) != before


def test_the_same_class_is_built_the_same_whatever_was_drawn_before(tmp_path: Path) -> None:
    source = CONDITIONAL.replace(
        "self.shape =", 'self.register_buffer("waves", torch.randn(4), persistent=False)\n        self.shape ='
    )
    source = source.replace("torch.tanh(", "self.waves[0] * 0.1 + 0.5 * torch.tanh(")
    write_custom(tmp_path / "own", source, custom_card())
    torch.manual_seed(77)
    worker = serve(tmp_path / "own", tmp_path)
    torch.manual_seed(78)
    assert Worker.load(tmp_path / "unpacked", {}).model.engine
    assert worker.model.engine


def test_building_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    write_custom(tmp_path, CONDITIONAL, custom_card())
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_written_to_the_authors_folder(tmp_path: Path) -> None:
    write_custom(tmp_path, CONDITIONAL, custom_card())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["generator.py", "model.yaml", "weights.safetensors"]


def test_a_card_without_recipe_and_quality_is_described(conditional: tuple[Worker, torch.nn.Module]) -> None:
    model = send(conditional[0], request(operation=9)).description.model
    assert (model.family, model.recipe, len(model.quality)) == ("module", "", 0)


def test_a_written_card_of_a_custom_model_is_read_back_equal(tmp_path: Path) -> None:
    write_card(custom_card(), tmp_path)
    assert load_card(tmp_path) == custom_card()
