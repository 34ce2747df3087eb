"""Tiny networks that `diffusers` makes, saves and draws from."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from fount.address import Addresses, Stream
from handlers.family import Noise
from handlers.models.diffusers_unet import DiffusersUnet

SIZE = 8


def make_unet(classes: int = 0, **changes: Any) -> UNet2DModel:
    torch.manual_seed(0)
    usual: dict[str, Any] = {
        "sample_size": SIZE, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16), "layers_per_block": 1,
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2,
        "add_attention": False, "num_class_embeds": classes or None,
    }  # fmt: skip
    return UNet2DModel(**(usual | changes)).eval()


def save_pipeline(folder: Path, classes: int = 0, scheduler: Any = None, **changes: Any) -> Path:
    scheduler = scheduler or DDPMScheduler()
    kind = DDPMPipeline if isinstance(scheduler, DDPMScheduler) else DDIMPipeline
    kind(make_unet(classes, **changes), scheduler).save_pretrained(folder)
    return folder


def make_family(unet: UNet2DModel, scheduler: Any) -> DiffusersUnet:
    keys = {key: value for key, value in scheduler.config.items() if key not in _UNREAD}
    name = type(scheduler).__name__
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    family = DiffusersUnet.from_config({"unet": config, "scheduler": keys | {"_class_name": name}})
    family.unet.load_state_dict(unet.state_dict())
    return family.eval()


_UNREAD = (
    "variance_type",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "_diffusers_version",
    "_use_default_values",
)


def noise_of(count: int, start: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(3, start, count), device=torch.device("cpu"))


@torch.inference_mode()
def draw_with_diffusers(
    unet: UNet2DModel, scheduler: DDIMScheduler, noise: Noise, labels: Tensor | None, steps: int, eta: float = 0.0,
    *, corrected: bool = False,
) -> Tensor:  # fmt: skip
    """Draw pictures by the scheduler's own loop: (B, C, H, W) in [-1, 1].

    Corrected, each step ends at the time of the next one, and the last at the picture: a step's length is T // steps,
    for which a fraction of steps is set that gives the right one.
    """
    scheduler.set_timesteps(steps)
    times, total = [*scheduler.timesteps.tolist(), -1], scheduler.config.num_train_timesteps
    shape = (unet.config.in_channels, SIZE, SIZE)
    x = noise.normal(Stream.LATENT, shape)
    for step, (time, after) in enumerate(pairwise(times)):
        if corrected:
            scheduler.num_inference_steps = Fraction(total, time - after)
        output = unet(x, time, class_labels=labels).sample
        fresh = noise.normal(Stream.STEP, shape, step=step)
        x = scheduler.step(output, time, x, eta=eta, variance_noise=fresh).prev_sample
    return x.clamp(-1, 1)
