"""Settings of one worker process: precision, memory layout, threads, device and state folder.

The process environment (`FOUNT_` names), the model's entry in `workers.yaml` and the device TorchServe assigned enter;
a `Settings` value leaves, which the rest of the worker reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, cast

from fount.tuned import TunedError, TunedModel, read_tuned

__all__ = ["Layout", "Precision", "Settings", "SettingsError", "settings_from_environment"]

Precision = Literal["fp32", "bf16"]
Layout = Literal["nchw", "nhwc"]

_MAX_THREADS = 1024
_CONFIG = "FOUNT_WORKER_CONFIG"


class SettingsError(Exception):
    """A worker setting cannot be read. Correct the environment variable or the key that the message names."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How this process runs its model.

    Attributes:
        device: a torch device, like "cpu" or "cuda:0".
        precision: of weights and activations.
        chosen_layout: memory layout of images in the network; None selects the one that suits the precision.
        folded: whether batch normalisation is folded into the layers before it at load.
        compiled: whether the network is compiled for this machine at load.
        threads: of one operation on a CPU.
        state_dir: the folder for stored measurements; None stores nothing.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    chosen_layout: Layout | None = None
    folded: bool = True
    compiled: bool = False
    threads: int = 1
    state_dir: Path | None = None

    @property
    def layout(self) -> Layout:
        """Memory layout of images: as chosen, else nchw in fp32 and nhwc in bf16."""
        return self.chosen_layout or ("nhwc" if self.precision == "bf16" else "nchw")

    def with_family_layout(self) -> Self:
        """Choose nhwc on a CPU, if no layout is chosen: convolutions run up to 1.5 times as fast.

        Not for custom modules, whose `view` of a feature map fails in this layout.
        """
        is_cpu = self.chosen_layout is None and self.device == "cpu"
        return replace(self, chosen_layout="nhwc") if is_cpu else self


def settings_from_environment(
    environment: Mapping[str, str], gpu_id: int | None = None, model: str | None = None
) -> Settings:
    """Read settings; those tuned for a model take precedence over the environment.

    Args:
        environment: FOUNT_WORKER_THREADS (default 1), FOUNT_WORKER_PRECISION (fp32 or bf16, default fp32),
            FOUNT_WORKER_LAYOUT (nchw or nhwc, default by precision, device and family), FOUNT_WORKER_FOLDED (0 or 1,
            default 1), FOUNT_WORKER_COMPILED (0 or 1, default 0), FOUNT_WORKER_CONFIG (a file written by `fount tune`,
            default: none) and FOUNT_STATE_DIR (default: nothing is stored).
        gpu_id: the CUDA device TorchServe assigned; None is the CPU.
        model: the model's name; None ignores the file.

    Raises:
        SettingsError: one of them cannot be read; the message names it.
    """
    tuned = _read_tuned(environment, model)
    precision = _read_choice(environment, "FOUNT_WORKER_PRECISION", ("fp32", "bf16")) or "fp32"
    layout = _read_choice(environment, "FOUNT_WORKER_LAYOUT", ("nchw", "nhwc"))
    folded = _read_choice(environment, "FOUNT_WORKER_FOLDED", ("0", "1")) != "0"
    compiled = _read_choice(environment, "FOUNT_WORKER_COMPILED", ("0", "1")) == "1"
    threads = _read_threads(environment)
    state_dir = environment.get("FOUNT_STATE_DIR")
    return Settings(
        device="cpu" if gpu_id is None else f"cuda:{gpu_id}",
        precision=tuned.precision or cast("Precision", precision),
        chosen_layout=tuned.layout or cast("Layout | None", layout),
        folded=folded if tuned.folded is None else tuned.folded,
        compiled=compiled if tuned.compiled is None else tuned.compiled,
        threads=tuned.threads or threads,
        state_dir=Path(state_dir) if state_dir else None,
    )


def _read_tuned(environment: Mapping[str, str], model: str | None) -> TunedModel:
    file = environment.get(_CONFIG)
    if not file or model is None:
        return TunedModel()
    try:
        return read_tuned(Path(file)).get(model, TunedModel())
    except TunedError as error:
        raise SettingsError(f"{_CONFIG} cannot be used: {error}") from error


def _read_threads(environment: Mapping[str, str]) -> int:
    threads = environment.get("FOUNT_WORKER_THREADS") or "1"
    if not threads.isascii() or not threads.isdigit() or not 1 <= int(threads) <= _MAX_THREADS:
        raise SettingsError(f"FOUNT_WORKER_THREADS is {threads!r}; set it to a whole number from 1 to {_MAX_THREADS}")
    return int(threads)


def _read_choice(environment: Mapping[str, str], name: str, choices: tuple[str, str]) -> str | None:
    text = environment.get(name)
    if text and text not in choices:
        raise SettingsError(f"{name} is {text!r}; set it to {choices[0]} or {choices[1]}")
    return text or None
