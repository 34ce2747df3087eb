"""Models that draw one pixel after another: exact likelihoods, and draws that neither caches nor cuts change."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fount.address import Addresses, Stream
from handlers.discrete import draw_values
from handlers.family import Deadline, Draw, Given, Noise
from handlers.models.belief_net import FullyVisibleBeliefNet
from handlers.models.pixelcnn import GatedPixelCnn, _Row, level_log_law, level_log_probability
from handlers.stepping import sample_in_steps, take_steps

BELIEF_NET = {"height": 4, "width": 4, "channels": 1, "classes": 0, "run": 2}
PIXEL_CNN = {
    "height": 6, "width": 4, "channels": 1, "classes": 3, "features": 4, "blocks": 2, "components": 3, "levels": 5,
    "run": 2,
}  # fmt: skip

Model = GatedPixelCnn | FullyVisibleBeliefNet


def pixel_cnn(**changes: int) -> GatedPixelCnn:
    model = GatedPixelCnn.from_config(PIXEL_CNN | changes)
    randomise(model, 0.4)
    return model


def belief_net(**changes: int) -> FullyVisibleBeliefNet:
    model = FullyVisibleBeliefNet.from_config(BELIEF_NET | changes)
    randomise(model, 0.7)
    return model


def randomise(model: nn.Module, scale: float) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(scale * torch.randn(weights.shape, generator=generator))
    model.eval().requires_grad_(False)


def noise_of(count: int, first: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(3, first, count), device=torch.device("cpu"))


def sample(model: Model, count: int, labels: Tensor | None = None, **parameters: Any) -> Tensor:
    return sample_in_steps(model, noise_of(count), labels, Draw(**parameters), Deadline())


MODELS = pytest.mark.parametrize("model", [pixel_cnn(), belief_net()], ids=["pixelcnn", "fvbn"])
LABELS = torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("kind", ["pixelcnn", "fvbn"])
def test_probabilities_of_all_pictures_sum_to_1(kind: str, side: int) -> None:
    size = {"height": side, "width": side, "run": side}
    model: Model = pixel_cnn(**size, levels=2) if kind == "pixelcnn" else belief_net(**size)
    pictures = torch.tensor(list(itertools.product([0.0, 1.0], repeat=side**2))).reshape(-1, 1, side, side)
    scores = model.score(pictures, None, noise_of(len(pictures)), Draw(), Deadline())
    assert float(scores.double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_the_law_of_a_pixel_is_that_of_its_likelihood() -> None:
    mixture = 2 * torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = level_log_law(mixture, 17)
    each = [level_log_probability(mixture, torch.full((4,), level), 17) for level in range(17)]
    assert torch.allclose(law, torch.stack(each, dim=1), atol=1e-9)
    assert torch.allclose(law.exp().sum(dim=1), torch.ones(4, dtype=torch.float64))


def test_a_pixel_sees_every_pixel_before_it_and_no_other() -> None:
    model = pixel_cnn(height=5, width=5, run=5, blocks=3)
    embedded = torch.ones(1, 2, 5, 5, requires_grad=True)

    def embed(levels: Tensor) -> Tensor:
        return embedded

    model._embed = embed  # type: ignore[method-assign]
    with torch.enable_grad():
        model(torch.zeros(1, 1, 5, 5, dtype=torch.int64), torch.tensor([0]))[0, 3, 2].sum().backward()
    assert embedded.grad is not None
    seen = embedded.grad[0, 0] != 0
    assert bool(seen.flatten()[: 3 * 5 + 2].all())
    assert not bool(seen.flatten()[3 * 5 + 2 :].any())


@MODELS
def test_a_score_is_the_sum_of_the_log_probabilities_of_its_steps(model: Model) -> None:
    picture = sample(model, 1)
    _, _, height, width = picture.shape
    total = sum(float(log_law(model, picture, place)) for place in range(height * width))
    assert total == pytest.approx(float(model.score(picture, None, noise_of(1), Draw(), Deadline())), abs=1e-4)


def log_law(model: Model, picture: Tensor, place: int) -> Tensor:
    """Compute the log-probability of one pixel from a network that has seen the earlier ones alone."""
    before = picture.clone().flatten(1)
    before[:, place:] = 0
    before = before.reshape(picture.shape)
    row, column = divmod(place, picture.shape[3])
    if isinstance(model, FullyVisibleBeliefNet):
        logit = model(before.flatten(1), torch.tensor([0]))[0, place]
        return nn.functional.logsigmoid(logit if picture[0, 0, row, column] > 0 else -logit)
    mixture = model(model._nearest_levels(before), torch.tensor([model.config.classes]))[:, row, column]
    return level_log_law(mixture, model.config.levels)[0, model._nearest_levels(picture)[0, 0, row, column]]


def test_cached_draws_are_those_without_cache() -> None:
    model = pixel_cnn()
    noise, config = noise_of(4), model.config
    levels = torch.zeros(4, 1, config.height, config.width, dtype=torch.int64)
    for step in range(model.steps(Draw())):
        uniforms = noise.uniform(Stream.STEP, config.run, step=step)
        for place in range(config.run):
            row, column = divmod(step * config.run + place, config.width)
            law = level_log_law(model(levels, LABELS)[:, row, column], config.levels)
            levels[:, 0, row, column] = draw_values(law, uniforms[:, place], Draw())
    assert torch.equal(sample(model, 4, LABELS), levels / (config.levels - 1))


@MODELS
def test_cutting_a_draw_at_each_step_changes_nothing(model: Model) -> None:
    state = None
    for step in range(model.steps(Draw())):
        state = take_steps(model, state, range(step, step + 1), noise_of(4), None, Draw(), Deadline())
    assert state is not None
    assert torch.equal(model.finish(state), sample(model, 4))


@MODELS
def test_a_row_is_the_same_in_every_batch(model: Model) -> None:
    whole = sample(model, 6)
    assert torch.equal(whole[4:5], sample_in_steps(model, noise_of(1, 4), None, Draw(), Deadline()))


@MODELS
@pytest.mark.parametrize("count", [4, 7], ids=["whole-rows", "within-a-run"])
def test_the_first_pixels_of_a_sample_lead_to_its_other_pixels(model: Model, count: int) -> None:
    whole = sample(model, 4)
    mask = (torch.arange(whole[0].numel()) < count).float().reshape(whole.shape[1:]).expand_as(whole)
    begun = model.begin_given(Given(values=whole * mask, mask=mask), noise_of(4), None, Draw())
    steps = range(model.steps(Draw()))
    assert torch.equal(model.finish(take_steps(model, begun, steps, noise_of(4), None, Draw(), Deadline())), whole)


@MODELS
def test_given_pixels_stay_and_change_those_that_follow(model: Model) -> None:
    whole = sample(model, 4)
    mask = torch.zeros_like(whole)
    mask[:, :, :2] = 1
    given = 1 - whole * mask
    begun = model.begin_given(Given(values=given, mask=mask), noise_of(4), None, Draw())
    steps = range(model.steps(Draw()))
    drawn = model.finish(take_steps(model, begun, steps, noise_of(4), None, Draw(), Deadline()))
    assert torch.equal(drawn[:, :, :2], given[:, :, :2])
    assert not torch.equal(drawn[:, :, 2:], whole[:, :, 2:])


@MODELS
def test_temperature_0_draws_the_same_picture_everywhere(model: Model) -> None:
    drawn = sample(model, 3, temperature=0.0)
    assert torch.equal(drawn, drawn[:1].expand_as(drawn))


@MODELS
def test_keeping_all_values_changes_nothing(model: Model) -> None:
    assert torch.equal(sample(model, 4, top_k=model.config.levels), sample(model, 4))


def test_guidance_1_is_none_and_another_one_changes_samples() -> None:
    model = pixel_cnn()
    plain = sample(model, 4, LABELS)
    assert torch.equal(sample(model, 4, LABELS, guidance_scale=1.0), plain)
    assert not torch.equal(sample(model, 4, LABELS, guidance_scale=5.0), plain)


def test_guidance_0_draws_without_class() -> None:
    model = pixel_cnn()
    assert torch.equal(sample(model, 4, LABELS, guidance_scale=0.0), sample(model, 4))


@pytest.mark.parametrize("kind", ["pixelcnn", "fvbn"])
def test_guidance_without_a_class_takes_one_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Model = pixel_cnn() if kind == "pixelcnn" else belief_net()
    plain = sample(model, 4)
    owner, name = (_Row, "log_law") if kind == "pixelcnn" else (FullyVisibleBeliefNet, "_log_law")
    computed, law = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: computed.append(1) or law(*arguments))
    assert torch.equal(sample(model, 4, guidance_scale=3.0), plain)
    assert len(computed) == plain[0].numel()


def test_scores_depend_on_the_class_and_without_labels_are_those_of_no_class() -> None:
    model = pixel_cnn()
    picture = sample(model, 1).expand(4, -1, -1, -1)
    none = model.log_likelihood(picture, torch.full((4,), 3))
    each = model.log_likelihood(picture, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(model.score(picture, None, noise_of(4), Draw(), Deadline())[:, 0], none)
    assert len(set(each.tolist())) == 4


def test_scores_are_of_the_nearest_level() -> None:
    model = pixel_cnn()
    picture = sample(model, 2)
    near = (picture + 0.1).clamp_max(1)
    assert torch.equal(model.log_likelihood(near, LABELS[:2]), model.log_likelihood(picture, LABELS[:2]))


def test_the_mean_score_of_own_samples_is_the_entropy() -> None:
    model = belief_net(height=2, width=3, run=3)
    pictures = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6))).reshape(-1, 1, 2, 3)
    law = model.log_likelihood(pictures, torch.zeros(64, dtype=torch.int64))
    entropy = -float((law.exp() * law).sum())
    scores = model.log_likelihood(sample(model, 4000), torch.zeros(4000, dtype=torch.int64))
    assert -float(scores.mean()) == pytest.approx(entropy, abs=4 * float(scores.std()) / math.sqrt(4000))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": 3}, "width is 4, must be divisible by run"),
        ({"channels": 3}, "channels is 3, must be 1"),
        ({"levels": 1}, "levels is 1, must be a whole number of 2 or more"),
        ({"colours": 1}, r"unknown or missing keys \['colours'\]"),
    ],
    ids=["run", "channels", "levels", "unknown"],
)
def test_a_wrong_configuration_names_its_key(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedPixelCnn.from_config(PIXEL_CNN | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"run": 5}, "run is 5, must divide the 16 pixels"), ({"channels": 3}, "channels is 3, must be 1")],
    ids=["run", "channels"],
)
def test_a_wrong_configuration_of_a_belief_net_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FullyVisibleBeliefNet.from_config(BELIEF_NET | changes)


@MODELS
def test_labels_for_no_classes_are_refused(model: Model) -> None:
    if model.config.classes:
        model = pixel_cnn(classes=0)
    with pytest.raises(ValueError, match="takes no labels"):
        model.score(
            torch.zeros(1, 1, 6, 4)[:, :, : model.config.height], torch.tensor([0]), noise_of(1), Draw(), Deadline()
        )
