"""Diffusion models of `diffusers`: a UNet2DModel with the configuration of its scheduler, drawn by DDIM.

The network is built by the package `diffusers`, which is imported when a model is built. The sampler is computed here.
The times of a draw are one grid, built once, and a step goes from one entry to the next, so that the noise level that a
step ends at is the one that the next step starts from. `DDIMScheduler` of diffusers 0.42.1 instead subtracts
T // steps from the time, whatever the spacing: under `leading` that is the same, under `linspace`, and under `trailing`
with a number of steps that does not divide T, it is another level than that of the next step (diffusers issue 11347;
pull request 9384 corrected DDPMScheduler alone). ᾱ and everything computed from it are float64.

The state is x_t. No layer of a UNet2DModel mixes the rows of a batch.

Sources: Song et al., "Denoising diffusion implicit models", 2021, equations 12 and 16; Salimans and Ho, "Progressive
distillation", 2022, appendix D (v-prediction); Lin et al., "Common diffusion noise schedules and sample steps are
flawed", 2024, algorithm 1 and table 2 (spacings).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise
from handlers.stepping import sample_in_steps

__all__ = [
    "DEFAULT_STEPS", "SCHEDULER_KEYS", "DiffusersUnet", "SchedulerConfig", "UnetShape", "config_problems", "unet_class",
]  # fmt: skip

DEFAULT_STEPS = 50
"""Steps of a draw without parameters, if the scheduler has as many."""

_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_SPACINGS = ("leading", "linspace", "trailing")
_REFUSED = {"thresholding": False, "predict_epsilon": True}  # keys that change samples, and their only known value
_MAX_BETA = 0.999
_PROBED = 2  # steps

Float64s = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What DDIM reads of a scheduler's configuration; names, meaning and defaults are those of `DDIMScheduler`.

    Attributes:
        num_train_timesteps: T, the number of noise levels.
        beta_start: of the schedule, at time 0.
        beta_end: of the schedule, at time T - 1.
        beta_schedule: linear, scaled_linear or squaredcos_cap_v2.
        trained_betas: (T,) in place of a schedule.
        clip_sample: whether the predicted picture is clipped at every step.
        clip_sample_range: its largest magnitude.
        set_alpha_to_one: whether the last step ends at the picture itself, else at the noise level of time 0.
        steps_offset: added to the times of leading spacing.
        prediction_type: what the network returns: epsilon, sample or v_prediction.
        timestep_spacing: leading, linspace or trailing.
        rescale_betas_zero_snr: whether the noise level of time T - 1 is raised to noise alone.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Read a configuration without problems; null is a key's default."""
        values = {key.name: config[key.name] for key in fields(cls) if config.get(key.name) is not None}
        betas = values.get("trained_betas")
        return cls(**(values | ({} if betas is None else {"trained_betas": tuple(betas)})))

    @cached_property
    def alphas(self) -> Float64s:
        """(T + 1,): ᾱ of each time, descending, and last, at index -1, the ᾱ that a draw ends at."""
        alphas = np.cumprod(1 - self.betas)
        if self.rescale_betas_zero_snr:  # Lin et al. 2024, algorithm 1
            roots = np.sqrt(alphas)
            alphas = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))) ** 2
        return np.append(alphas, 1.0 if self.set_alpha_to_one else alphas[0])

    @cached_property
    def betas(self) -> Float64s:
        """(T,): the variance of the noise that each time adds, before any rescaling."""
        count = self.num_train_timesteps
        if self.trained_betas is not None:
            return np.array(self.trained_betas, np.float64)
        if self.beta_schedule == "linear":
            return np.linspace(self.beta_start, self.beta_end, count)
        if self.beta_schedule == "scaled_linear":
            return np.linspace(self.beta_start**0.5, self.beta_end**0.5, count) ** 2
        levels = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * (math.pi / 2)) ** 2
        return cast("Float64s", np.minimum(1 - levels[1:] / levels[:-1], _MAX_BETA))

    @cached_property
    def max_steps(self) -> int:
        """The most steps of a draw; below T if leading times would exceed T - 1 by their offset, or 0."""
        total = self.num_train_timesteps
        if self.timestep_spacing != "leading" or not self.steps_offset:
            return total
        last = ((n - 1) * (total // n) + self.steps_offset for n in range(1, total + 1))
        return next((n for n, time in enumerate(last) if time >= total), total)

    def times(self, steps: int) -> NDArray[np.int64]:
        """Compute the times of a draw, descending, and where it ends: indices of `alphas`.

        They are those of `DDIMScheduler.set_timesteps`, except that one step under linspace starts at T - 1, not at 0.

        Returns:
            (steps + 1,); the last is -1, or, under leading with an offset of T // steps or more, a time.
        """
        total, places, end = self.num_train_timesteps, np.arange(steps - 1, -1, -1), -1
        times: NDArray[Any]
        if self.timestep_spacing == "leading":
            times = places * (total // steps) + self.steps_offset
            end = max(-1, self.steps_offset - total // steps)
        elif self.timestep_spacing == "linspace":
            times = np.linspace(0, total - 1, steps).round()[::-1] if steps > 1 else np.array([total - 1])
        else:
            times = np.round((places + 1) * total / steps) - 1
        return np.append(times, end).astype(np.int64)


SCHEDULER_KEYS = ("_class_name", *(key.name for key in fields(SchedulerConfig)), *_REFUSED)
"""The keys of a scheduler's configuration in a card."""


@dataclass(frozen=True, kw_only=True)
class UnetShape:
    """What a network draws.

    Attributes:
        height: pixels.
        width: pixels.
        channels: of the pictures.
        classes: rows of its class embedding; 0 for an unconditional model.
    """

    height: int
    width: int
    channels: int
    classes: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Read a UNet2DModel's configuration without problems."""
        size = config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        classes = config.get("num_class_embeds") or 0
        return cls(height=height, width=width, channels=config.get("in_channels", 3), classes=classes)


def config_problems(config: Mapping[str, Any]) -> list[str]:
    """Find everything that is wrong with a configuration of this family, except for what `diffusers` itself refuses.

    Args:
        config: unet, the configuration of a UNet2DModel; scheduler, that of its scheduler; and perhaps steps.

    Returns:
        A clause for each problem: the key, what is wrong, and what it must be.
    """
    if wrong := sorted(set(config) - {"steps"} ^ {"unet", "scheduler"}):
        return [f"unknown or missing keys {wrong}: it takes unet and scheduler, and perhaps steps"]
    unet, scheduler = config["unet"], config["scheduler"]
    if not isinstance(unet, Mapping) or not isinstance(scheduler, Mapping):
        return ["unet and scheduler must be mappings, the content of the JSON files of diffusers"]
    problems = [*_unet_problems(unet), *_scheduler_problems(scheduler)]
    if problems:
        return problems
    read = SchedulerConfig.read(scheduler)
    if unet.get("time_embedding_type") == "learned" and (unet.get("num_train_timesteps") or 0) < len(read.alphas) - 1:
        found = f"unet.num_train_timesteps is {unet.get('num_train_timesteps')}"
        problems.append(f"{found}: must be {read.num_train_timesteps} or more, the scheduler's, for learned times")
    if not _is_whole(config.get("steps", 1), 1) or config.get("steps", 1) > read.max_steps:
        problems.append(f"steps is {config['steps']!r}: must be 1 to {read.max_steps}")
    return problems


def _unet_problems(unet: Mapping[str, Any]) -> Iterator[str]:
    size, blocks = unet.get("sample_size"), unet.get("block_out_channels", (0,) * 4)
    sides: tuple[Any, ...] = tuple(size) if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    factor = 2 ** (len(blocks) - 1) if isinstance(blocks, list | tuple) else 1
    if not all(_is_whole(side, 1) for side in sides):
        yield f"unet.sample_size is {size!r}: must be the side of the pictures it was trained on, or [height, width]"
    elif any(side % factor for side in sides):
        yield f"unet.sample_size is {size!r}: must be divisible by {factor}, the factor of its {len(blocks)} blocks"
    inputs, outputs = unet.get("in_channels", 3), unet.get("out_channels", 3)
    if not _is_whole(inputs, 1) or inputs != outputs:
        found = f"unet.in_channels is {inputs!r} and out_channels {outputs!r}"
        yield f"{found}: must be equal; a learned variance, or a condition in further channels, is not supported"
    if unet.get("class_embed_type") is not None:
        found = f"unet.class_embed_type is {unet['class_embed_type']!r}"
        yield f"{found}: must be null; only classes of num_class_embeds are supported"
    if (classes := unet.get("num_class_embeds")) is not None and not _is_whole(classes, 1):
        yield f"unet.num_class_embeds is {classes!r}: must be the number of classes, or null"
    if (kind := unet.get("time_embedding_type", "positional")) not in ("positional", "learned"):
        found = f"unet.time_embedding_type is {kind!r}"
        yield f"{found}: must be positional or learned; continuous noise levels have schedulers that are not read"


def _scheduler_problems(scheduler: Mapping[str, Any]) -> Iterator[str]:
    kind = scheduler.get("_class_name")
    if kind not in _SCHEDULERS:
        found = f"scheduler._class_name is {kind!r}"
        yield f"{found}: must be {' or '.join(_SCHEDULERS)}; others have noise levels that are not read"
        return
    if unknown := sorted(set(scheduler) - set(SCHEDULER_KEYS)):
        yield f"scheduler has the unknown keys {', '.join(unknown)}: must be of {', '.join(SCHEDULER_KEYS)}"
    for key, value in _REFUSED.items():
        if scheduler.get(key) not in (None, value):
            remedy = "; set prediction_type to sample" if key == "predict_epsilon" else "; it is not supported"
            yield f"scheduler.{key} is {scheduler[key]!r}: must be {str(value).lower()} or absent{remedy}"
    wrong = list(_scheduler_key_problems(scheduler))
    yield from wrong
    if not wrong:
        yield from _level_problems(SchedulerConfig.read(scheduler))


def _scheduler_key_problems(scheduler: Mapping[str, Any]) -> Iterator[str]:
    choices = {
        "beta_schedule": _BETA_SCHEDULES, "prediction_type": _PREDICTIONS, "timestep_spacing": _SPACINGS,
        "clip_sample": (True, False), "set_alpha_to_one": (True, False), "rescale_betas_zero_snr": (True, False),
    }  # fmt: skip
    for key, allowed in choices.items():
        if scheduler.get(key) is not None and scheduler[key] not in allowed:
            yield f"scheduler.{key} is {scheduler[key]!r}: must be one of {', '.join(map(str, allowed))}"
    for key, least in (("num_train_timesteps", _PROBED), ("steps_offset", 0)):
        if scheduler.get(key) is not None and not _is_whole(scheduler[key], least):
            yield f"scheduler.{key} is {scheduler[key]!r}: must be a whole number of {least} or more"
    for key in ("beta_start", "beta_end", "clip_sample_range"):
        value = scheduler.get(key)
        if value is not None and not (_is_number(value) and value > 0):
            yield f"scheduler.{key} is {value!r}: must be a number above 0"
    betas = scheduler.get("trained_betas")
    if betas is not None and not (isinstance(betas, list | tuple) and all(map(_is_number, betas))):
        yield f"scheduler.trained_betas is a {type(betas).__name__}: must be a list of numbers, or null"
    elif betas is not None and len(betas) != (scheduler.get("num_train_timesteps") or 1000):
        yield f"scheduler.trained_betas has {len(betas)} numbers: must have num_train_timesteps"


def _level_problems(scheduler: SchedulerConfig) -> Iterator[str]:
    """Find what is wrong with the noise levels, of which all but the last must be between noise and picture."""
    betas = scheduler.betas
    if not (betas > 0).all() or not (betas < 1).all():
        yield f"scheduler has betas from {betas.min():g} to {betas.max():g}: must be above 0 and below 1"
    elif scheduler.rescale_betas_zero_snr and scheduler.prediction_type == "epsilon":
        remedy = "must be sample or v_prediction; noise alone does not say what the picture is"
        yield f"scheduler.prediction_type is epsilon, with rescale_betas_zero_snr: {remedy}"
    if scheduler.max_steps < _PROBED:
        yield f"scheduler.steps_offset is {scheduler.steps_offset}: must be smaller for draws of {_PROBED} steps"


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(cast("float", value))


def unet_class() -> type[nn.Module]:
    """Import `diffusers.UNet2DModel`.

    Raises:
        ImportError: it cannot be imported; the message says what to install.
    """
    try:
        from diffusers import UNet2DModel  # here, because it takes seconds
    except (ImportError, RuntimeError) as error:  # RuntimeError: its own, for what it imports itself
        needs = f"the family diffusers-unet needs the package diffusers, which cannot be imported ({error})"
        raise ImportError(f"{needs}; pip install 'fount[diffusers]'") from error
    return cast("type[nn.Module]", UNet2DModel)


def _build_unet(config: Mapping[str, Any]) -> nn.Module:
    kind = unet_class()
    keys = {key: value for key, value in config.items() if not key.startswith("_")}
    if unknown := sorted(set(keys) - set(inspect.signature(kind.__init__).parameters)):
        raise ValueError(f"unet has keys that the installed diffusers.UNet2DModel does not know: {', '.join(unknown)}")
    try:
        return cast("nn.Module", kind.from_config(keys))  # type: ignore[attr-defined]
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"unet is refused by diffusers: {error}") from error


class DiffusersUnet(nn.Module):
    """A UNet2DModel, drawn by DDIM."""

    discrete: ClassVar[bool] = False

    def __init__(self, unet: nn.Module, shape: UnetShape, scheduler: SchedulerConfig, usual_steps: int) -> None:
        """Wrap a network; `usual_steps` are those of a draw without parameters."""
        super().__init__()
        self.unet = unet
        self.shape = shape
        self.scheduler = scheduler
        self.usual_steps = usual_steps
        self._times: dict[int, NDArray[np.int64]] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the model.

        Raises:
            ValueError: the configuration is wrong; names everything that is.
            ImportError: `diffusers` cannot be imported.
        """
        if problems := config_problems(config):
            raise ValueError(". ".join(problems))
        scheduler = SchedulerConfig.read(config["scheduler"])
        usual = config.get("steps", min(DEFAULT_STEPS, scheduler.max_steps))
        return cls(_build_unet(config["unet"]), UnetShape.read(config["unet"]), scheduler, usual)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one picture for each row: (B, C, H, W) in [-1, 1]."""
        return sample_in_steps(self, noise, labels, draw, deadline)

    def steps(self, draw: Draw) -> int:
        """Return how many steps a draw takes.

        Raises:
            ValueError: steps is not in 1 to `SchedulerConfig.max_steps`.
        """
        steps = self.usual_steps if draw.steps is None else draw.steps
        if not 1 <= steps <= self.scheduler.max_steps:
            raise ValueError(f"steps is {steps}, must be in 1 to {self.scheduler.max_steps}")
        return steps

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return a draw of two steps; all steps have the same shapes."""
        return Draw(steps=_PROBED), tuple(range(_PROBED))

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return x_T: (B, C, H, W), N(0, 1)."""
        return noise.normal(Stream.LATENT, (self.shape.channels, self.shape.height, self.shape.width)).float()

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Take one step of DDIM, with η noise.

        Source: Song et al. 2021, equations 12 and 16; as in `DDIMScheduler`, ε is not computed again after clipping.
        """
        time, after = self._grid(self.steps(draw))[step : step + 2]
        alpha, alpha_after = float(self.scheduler.alphas[time]), float(self.scheduler.alphas[after])
        times = torch.full((len(state),), int(time), dtype=torch.int64, device=state.device)
        output = self.unet(state.to(noise.dtype), times, class_labels=labels, return_dict=False)[0].float()
        picture, epsilon = self._split(state, output, alpha)
        if self.scheduler.clip_sample:
            picture = picture.clamp(-self.scheduler.clip_sample_range, self.scheduler.clip_sample_range)
        variance = (1 - alpha_after) / (1 - alpha) * (1 - alpha / alpha_after)
        spread = (draw.eta or 0.0) * math.sqrt(variance)
        direction = math.sqrt(max(0.0, 1 - alpha_after - spread**2))
        mean = math.sqrt(alpha_after) * picture + direction * epsilon
        if not spread:
            return mean
        return mean + spread * noise.normal(Stream.STEP, tuple(state.shape[1:]), step=step).float()

    def finish(self, state: Tensor) -> Tensor:
        """Clamp the state after the last step to [-1, 1]."""
        return state.clamp(-1, 1)

    def _grid(self, steps: int) -> NDArray[np.int64]:
        """Return the times of a draw of so many steps, computed once."""
        if steps not in self._times:
            self._times[steps] = self.scheduler.times(steps)
        return self._times[steps]

    def _split(self, state: Tensor, output: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """Split x_t = √ᾱ x_0 + √(1 - ᾱ) ε into x_0 and ε, by what the network returned."""
        signal, sigma = math.sqrt(alpha), math.sqrt(1 - alpha)
        if self.scheduler.prediction_type == "epsilon":
            return (state - sigma * output) / signal, output
        if self.scheduler.prediction_type == "sample":
            return output, (state - signal * output) / sigma
        return signal * state - sigma * output, signal * output + sigma * state
