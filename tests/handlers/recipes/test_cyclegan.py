"""Translation without pairs: generators chosen by label, rows that do not depend on others, losses, and the history."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fount.address import Addresses
from handlers.cards.card import Card, Family, Golden, Limits, Sample, Weights
from handlers.execution.network import build_network
from handlers.execution.numerics import read_numerics
from handlers.family import Deadline, DeadlinePassed, Draw, Given, Noise
from handlers.models import load_family
from handlers.models.cyclegan import CycleGan, PatchDiscriminator, discriminator_loss, generator_loss
from handlers.recipes.catalogue import RECIPES, Recipe
from handlers.recipes.data.ink import read_ink, split_unpaired, write_in_ink
from handlers.recipes.data.load import TrainingData
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.run.unpaired_probe import UnpairedProbe
from handlers.recipes.tasks.cyclegans import CycleGanTask, History
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.golden import check_golden, record_golden
from handlers.verification.profile import measure_profile
from tests.handlers.training_toys import CPU, advance, are_equal, new_task, refit

CONFIG = {"height": 8, "width": 8, "channels": 1, "features": 4, "blocks": 1}


def build(**changes: int) -> CycleGan:
    torch.manual_seed(0)
    return CycleGan.from_config(CONFIG | changes).eval().requires_grad_(False)


def pictures(count: int) -> Tensor:
    return 2 * torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)) - 1


def translate(module: CycleGan, images: Tensor, labels: list[int] | None, deadline: Deadline | None = None) -> Tensor:
    noise = Noise(addresses=Addresses.of_range(0, 0, len(images)), device=CPU)
    chosen = None if labels is None else torch.tensor(labels)
    return module.translate(Given(values=images), chosen, noise, Draw(), deadline or Deadline())


def small(**fit: object) -> Recipe:
    """The recipe for the 8×8 digits."""
    recipe = dataclasses.replace(RECIPES["mnist-ink-cyclegan"], data="digits", config=CONFIG)
    return refit(recipe, **({"batch": 4, "discriminator_features": 4, "history": 6} | fit))


# --- The generators ---------------------------------------------------------------------------------------------------


def test_the_family_is_built_by_name() -> None:
    assert isinstance(load_family("cyclegan", CONFIG), CycleGan)


@pytest.mark.parametrize("changes", [{}, {"channels": 3}, {"height": 12}, {"blocks": 2}], ids=str)
def test_a_translation_has_the_size_of_the_picture(changes: dict[str, int]) -> None:
    config = CONFIG | changes
    images = torch.zeros(2, config["channels"], config["height"], config["width"])
    translated = translate(build(**changes), images, [0, 1])
    assert translated.shape == images.shape
    assert -1 <= translated.min() < translated.max() <= 1


def test_a_label_chooses_the_generator() -> None:
    module, images = build(), pictures(3)
    there, back = (generator(images) for generator in module.generators)
    mixed = translate(module, images, [0, 1, 0])
    assert torch.equal(mixed, torch.stack([there[0], back[1], there[2]]))


def test_a_generator_that_no_row_chooses_is_not_run() -> None:
    module = build()
    module.generators[1] = torch.nn.Identity()
    module.generators[1].register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    translate(module, pictures(2), [0, 0])


def test_no_row_depends_on_another() -> None:
    module, images = build(), pictures(4)
    others = images.clone()
    others[1:] = torch.rand_like(others[1:])
    one, other = translate(module, images, [0, 1, 0, 1]), translate(module, others, [0, 0, 1, 1])
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(translate(module, images[:1], [0])[0], one[0], rtol=0, atol=1e-6)


def test_every_channel_of_a_row_is_normalised_by_itself() -> None:
    norm = build().generators[0][1]
    features = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    mean, std = features.mean(dim=(2, 3), keepdim=True), features.std(dim=(2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(norm(features), (features - mean) / std, rtol=0, atol=1e-4)


def test_a_picture_without_a_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="2 directions takes one label for each row"):
        translate(build(), pictures(1), None)


def test_a_passed_deadline_ends_a_translation() -> None:
    with pytest.raises(DeadlinePassed):
        translate(build(), pictures(1), [0], Deadline(unix_s=1.0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG | {"colours": 3}, "colours"),
        ({"height": 8}, "blocks"),
        (CONFIG | {"blocks": 0}, "blocks is 0"),
        (CONFIG | {"width": 10}, "width is 10, must be divisible by 4"),
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CycleGan.from_config(config)


def test_a_worker_verifies_its_translations(tmp_path: Path) -> None:
    card = Card(
        name="ink", version="1.0", description="ink", family=Family(name="cyclegan", config=CONFIG),
        operations=("TRANSLATE",), classes=("to-ink", "to-digit"),
        sample=Sample(modality="image", height=8, width=8, channels=1, value_range=(-1.0, 1.0)),
        parameters={}, encodings=("UINT8",), limits=Limits(max_count=100, max_labels=100, max_exec_batch=16),
        precisions=("fp32",), data_licence="none", intended_use="tests",
        weights=Weights(file="weights.safetensors"), golden=Golden(file="golden.safetensors"),
    )  # fmt: skip
    images = (127.5 * (pictures(64) + 1)).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    record_golden(card, build(), tmp_path / "golden.safetensors", images=images)
    network = build_network(card, build(), Settings())
    sizes = measure_profile(network).exec_batch_sizes
    difference = check_golden(
        tmp_path / "golden.safetensors", network, sizes, "digest", read_numerics(Settings()), State(folder=tmp_path)
    )
    assert difference.startswith("translated images by up to 0 levels")


# --- The discriminator and the losses ---------------------------------------------------------------------------------


def test_a_discriminator_scores_patches_of_18_pixels() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(1, 4).requires_grad_(False)
    judge.layers[3] = torch.nn.Identity()  # normalisation reads the whole picture
    image = torch.zeros(1, 1, 40, 40, requires_grad=True)
    judge(image)[0, 0, 5, 5].backward()
    assert image.grad is not None
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert (len(rows), int(rows[-1] - rows[0])) == (18, 17)


def test_losses_are_squares() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    assert float(discriminator_loss(real, fake)) == 0.5 * 2.0 + 0.5 * 2.0
    assert float(generator_loss(fake)) == 1.0


# --- Ink --------------------------------------------------------------------------------------------------------------


def test_ink_is_wider_and_dark() -> None:
    digit = torch.zeros(1, 1, 5, 5)
    digit[0, 0, 2, 1] = 0.75
    expected = torch.ones(5, 5)
    expected[1:4, 0:3] = 0.25
    assert torch.equal(write_in_ink(digit)[0, 0], expected)


def test_ink_is_read_as_the_digit_with_its_narrow_gaps_closed() -> None:
    digit = torch.zeros(1, 1, 8, 9)
    digit[0, 0, 2:6, [3, 5]] = 0.75  # a gap of one pixel
    expected = torch.zeros(8, 9)
    expected[2:6, 3:6] = 0.75
    assert torch.equal(read_ink(write_in_ink(digit))[0, 0], expected)


def test_no_digit_is_of_both_kinds(digits: TrainingData) -> None:
    light, ink = split_unpaired(digits.train)
    assert len(light) + len(ink) == len(digits.train.labels)
    assert torch.equal(light[3], digits.train.images[6])
    assert torch.equal(ink[3], write_in_ink(digits.train.images[7:8])[0])


# --- Training ---------------------------------------------------------------------------------------------------------


def test_a_history_returns_what_it_stores_until_it_is_full() -> None:
    history, generator = History(3, (1, 1, 1)), torch.Generator().manual_seed(0)
    first = torch.arange(3.0).reshape(3, 1, 1, 1)
    assert torch.equal(history.exchange(first, generator), first)
    assert torch.equal(history.images, first)


def test_a_full_history_returns_an_older_picture_half_of_the_time() -> None:
    history, generator = History(3, (1, 1, 1)), torch.Generator().manual_seed(0)
    history.exchange(torch.zeros(3, 1, 1, 1), generator)
    new = torch.arange(1.0, 401.0).reshape(400, 1, 1, 1)
    returned = history.exchange(new, generator)
    assert 160 < int((returned != new).sum()) < 240
    assert bool((returned <= new).all())


def test_a_resumed_training_ends_with_the_same_bits() -> None:
    whole = advance(new_task(small()), 0, 8)
    half = advance(new_task(small()), 0, 3).state()
    resumed = new_task(small(), seed=6)
    resumed.load_state(half)
    assert are_equal(advance(resumed, 3, 8).state(), whole.state())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch", 3), ("discriminator_features", 6), ("cycle_weight", 3.0), ("middle_noise", 0.5), ("history", 2),
        ("generator_rate", 1e-3), ("discriminator_rate", 1e-3), ("betas", (0.0, 0.9)), ("constant_share", 0.0),
        ("last_share", 0.9), ("averaging", 0.9),
    ],
)  # fmt: skip
def test_every_option_changes_the_weights(option: str, value: object) -> None:
    recipes = small(), small(**{option: value})
    one, other = (advance(new_task(recipe, steps=4), 0, 4).averaged().state_dict() for recipe in recipes)
    assert not are_equal(one, other)


def test_generators_learn_to_undo_each_other() -> None:
    task = new_task(small(batch=16), steps=60)
    assert isinstance(task, CycleGanTask)
    cycles = [float(task.step(number)["cycle"]) for number in range(60)]
    assert sum(cycles[-5:]) < 0.75 * sum(cycles[:5])


def test_a_snapshot_has_the_labels_kept_both_ways(digits: TrainingData, evaluator: Evaluator) -> None:
    probe = UnpairedProbe(digits, evaluator.classifier, CPU)
    snapshot = probe.measure(build(), 7)
    assert (snapshot.step, len(snapshot.accuracies)) == (7, 2)
    assert probe.draw(build()).width > 0
