"""DDIM on networks of diffusers gives the pictures of its own scheduler, where that is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from handlers.family import Deadline, Draw
from handlers.models.diffusers_unet import DiffusersUnet, SchedulerConfig, config_problems
from handlers.stepping import ManyStepSampler, take_steps
from tests.handlers.diffusers_models.saved import SIZE, draw_with_diffusers, make_family, make_unet, noise_of

ROWS = 4
_BOUND = 2e-3  # of pixels in [-1, 1]: a quarter of a level of 255


def draw(family: DiffusersUnet, labels: Tensor | None, **parameters: Any) -> Tensor:
    with torch.inference_mode():
        return family.sample(noise_of(ROWS), labels, Draw(**parameters), Deadline())


def labels_of(classes: int) -> Tensor | None:
    return torch.arange(ROWS) % classes if classes else None


def difference(classes: int, steps: int, *, eta: float = 0.0, corrected: bool = False, **keys: Any) -> float:
    """The largest difference of a pixel from diffusers' own loop."""
    unet, scheduler = make_unet(classes), DDIMScheduler(**keys)
    expected = draw_with_diffusers(unet, scheduler, noise_of(ROWS), labels_of(classes), steps, eta, corrected=corrected)
    found = draw(make_family(unet, scheduler), labels_of(classes), steps=steps, eta=eta)
    return float((found - expected).abs().max())


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
def test_leading_times_draw_the_pictures_of_diffusers(classes: int, prediction: str) -> None:
    assert difference(classes, 10, prediction_type=prediction) < _BOUND


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"beta_schedule": "scaled_linear"}, id="scaled_linear"),
        pytest.param({"beta_schedule": "squaredcos_cap_v2"}, id="cosine"),
        pytest.param({"trained_betas": np.geomspace(1e-4, 0.05, 1000).tolist()}, id="trained_betas"),
        pytest.param({"steps_offset": 1}, id="offset"),
        pytest.param({"set_alpha_to_one": False}, id="last-alpha"),
        pytest.param({"clip_sample": False, "prediction_type": "v_prediction"}, id="unclipped"),
        pytest.param({"clip_sample_range": 0.5}, id="range"),
        pytest.param({"num_train_timesteps": 100, "beta_end": 0.2}, id="T=100"),
        pytest.param(
            {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
            id="zero-snr",
        ),
    ],
)
def test_a_scheduler_key_is_read_as_diffusers_does(keys: dict[str, Any]) -> None:
    assert difference(0, 10, **keys) < _BOUND


def test_noise_is_added_as_diffusers_does() -> None:
    assert difference(0, 10, eta=0.7) < _BOUND


def test_trailing_times_draw_the_pictures_of_diffusers_if_steps_divide_the_times() -> None:
    assert difference(0, 10, timestep_spacing="trailing") < _BOUND


@pytest.mark.parametrize(
    ("spacing", "steps"), [("linspace", 10), ("trailing", 13)], ids=["linspace", "trailing-not-dividing"]
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_other_times_end_at_the_time_of_the_next_step(spacing: str, steps: int, prediction: str) -> None:
    keys = {"timestep_spacing": spacing, "prediction_type": prediction}
    assert difference(0, steps, corrected=True, **keys) < _BOUND
    assert difference(0, steps, **keys) > 0.01  # the scheduler's own distance


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_times_are_those_of_the_scheduler(spacing: str, offset: int) -> None:
    keys: dict[str, Any] = {"timestep_spacing": spacing, "steps_offset": offset}
    ours, scheduler = SchedulerConfig(**keys), DDIMScheduler(**keys)
    for steps in (2, 3, 7, 48, 50, 333, 600, 999):
        scheduler.set_timesteps(steps)
        assert ours.times(steps)[:-1].tolist() == scheduler.timesteps.tolist()


def test_trailing_times_are_exact() -> None:
    times = SchedulerConfig(timestep_spacing="trailing").times(61)  # of which the scheduler makes 62
    assert (len(times), times[0], times[1], times[-2], times[-1]) == (62, 999, 983, 15, -1)


def test_an_offset_limits_the_steps() -> None:
    assert SchedulerConfig(steps_offset=1).max_steps == 999
    assert SchedulerConfig(steps_offset=0).max_steps == 1000


def test_one_step_starts_at_noise() -> None:
    assert SchedulerConfig(timestep_spacing="linspace").times(1).tolist() == [999, -1]


def test_ddpm_is_drawn_like_ddim() -> None:
    unet = make_unet()
    found = (draw(make_family(unet, kind()), None, steps=4) for kind in (DDPMScheduler, DDIMScheduler))
    assert torch.equal(*found)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_draw_cut_after_any_step_is_the_same(eta: float) -> None:
    family, chosen = make_family(make_unet(), DDIMScheduler()), Draw(steps=6, eta=eta)
    whole = draw(family, None, steps=6, eta=eta)
    for cut in range(1, 6):
        with torch.inference_mode():
            before = take_steps(family, None, range(cut), noise_of(ROWS), None, chosen, Deadline())
            after = take_steps(family, before, range(cut, 6), noise_of(ROWS), None, chosen, Deadline())
        assert torch.equal(family.finish(after), whole)


def test_parameters_change_the_picture() -> None:
    family = make_family(make_unet(), DDIMScheduler())
    usual = draw(family, None, steps=5)
    assert not torch.equal(usual, draw(family, None, steps=6))
    assert not torch.equal(usual, draw(family, None, steps=5, eta=1.0))


def test_a_draw_without_parameters_takes_50_steps_or_as_many_as_there_are() -> None:
    assert make_family(make_unet(), DDIMScheduler()).steps(Draw()) == 50
    assert make_family(make_unet(), DDIMScheduler(num_train_timesteps=20, beta_end=0.2)).steps(Draw()) == 20


@pytest.mark.parametrize("steps", [0, 31])
def test_more_steps_than_times_are_refused(steps: int) -> None:
    family = make_family(make_unet(0), DDIMScheduler(num_train_timesteps=30, beta_end=0.2))
    with pytest.raises(ValueError, match=rf"steps is {steps}, must be in 1 to 30"):
        family.steps(Draw(steps=steps))


def test_it_is_a_sampler_of_many_steps() -> None:
    family = make_family(make_unet(), DDIMScheduler())
    assert isinstance(family, ManyStepSampler)
    assert family.probe() == (Draw(steps=2), (0, 1))
    assert family.begin(noise_of(2), None, Draw()).shape == (2, 1, SIZE, SIZE)


UNET = {key: value for key, value in make_unet().config.items() if not key.startswith("_")}
SCHEDULER = {"_class_name": "DDIMScheduler"}


@pytest.mark.parametrize(
    ("unet", "scheduler", "words"),
    [
        ({"out_channels": 2}, {}, "out_channels 2: must be equal; a learned variance"),
        ({"sample_size": None}, {}, "sample_size is None: must be the side"),
        ({"sample_size": [8, 7]}, {}, "must be divisible by 2"),
        ({"class_embed_type": "timestep"}, {}, "must be null; only classes of num_class_embeds"),
        ({"num_class_embeds": 0}, {}, "must be the number of classes"),
        ({"time_embedding_type": "fourier"}, {}, "must be positional or learned"),
        ({"time_embedding_type": "learned", "num_train_timesteps": 10}, {}, "must be 1000 or more"),
        ({}, {"_class_name": "EulerDiscreteScheduler"}, "must be DDPMScheduler or DDIMScheduler"),
        ({}, {"beta_schedule": "sigmoid"}, "must be one of linear, scaled_linear, squaredcos_cap_v2"),
        ({}, {"prediction_type": "flow"}, "must be one of epsilon, sample, v_prediction"),
        ({}, {"timestep_spacing": "karras"}, "must be one of leading, linspace, trailing"),
        ({}, {"thresholding": True}, "must be false or absent"),
        ({}, {"predict_epsilon": False}, "set prediction_type to sample"),
        ({}, {"num_train_timesteps": 1}, "must be a whole number of 2 or more"),
        ({}, {"beta_start": 0}, "must be a number above 0"),
        ({}, {"beta_end": 2.0}, "has betas from 0.0001 to 2: must be above 0 and below 1"),
        ({}, {"trained_betas": [0.1]}, "has 1 numbers: must have num_train_timesteps"),
        ({}, {"trained_betas": "many"}, "is a str: must be a list of numbers"),
        ({}, {"rescale_betas_zero_snr": True}, "must be sample or v_prediction"),
        ({}, {"steps_offset": 1000}, "must be smaller"),
        ({}, {"spacing": "leading"}, "has the unknown keys spacing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_a_wrong_key_is_named_with_what_it_must_be(unet: Any, scheduler: Any, words: str) -> None:
    (problem,) = config_problems({"unet": UNET | unet, "scheduler": SCHEDULER | scheduler})
    assert words in problem


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"sample_size.*_class_name"):
        DiffusersUnet.from_config({"unet": {}, "scheduler": {}})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"unet": UNET}, r"unknown or missing keys \['scheduler'\]"),
        ({"unet": UNET, "scheduler": "ddim"}, "must be mappings"),
        ({"unet": UNET, "scheduler": SCHEDULER, "steps": 1001}, "steps is 1001: must be 1 to 1000"),
        ({"unet": UNET | {"depth": 3}, "scheduler": SCHEDULER}, "does not know: depth"),
        ({"unet": UNET | {"norm_num_groups": 5}, "scheduler": SCHEDULER}, "unet is refused by diffusers"),
    ],
    ids=["missing", "text", "steps", "unknown", "groups"],
)
def test_a_wrong_configuration_is_refused(config: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffusersUnet.from_config(config)


def test_a_label_changes_the_picture() -> None:
    family = make_family(make_unet(3), DDIMScheduler())
    one, other = (draw(family, torch.full((ROWS,), label), steps=3) for label in (0, 1))
    assert not torch.equal(one, other)
