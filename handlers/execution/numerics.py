"""Numerics: the name of everything the bytes of a sample depend on in addition to its address and its model.

Kernels are chosen by processor, instruction set, element type, layout, thread count and library version, and each
choice rounds in its own order. This process and its settings enter; a `Numerics` leaves whose id is equal exactly when
all of that is equal: `cpu-avx2-fp32-nhwc-folded-t1-torch2.13.0-1a2b3c4d`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from handlers.execution.compiling import compiler_version
from handlers.settings import Settings

__all__ = ["Numerics", "configure_torch", "read_numerics"]

_CAPS = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "MKL_DYNAMIC",
    "MKL_DEBUG_CPU_TYPE", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_BLAS_PREFER_CUBLASLT",
    "OPENBLAS_CORETYPE", "DISABLE_ADDMM_CUDA_LT",
)  # fmt: skip
"""Environment variables that make libraries choose other kernels."""

_COMPILER_CAP = re.compile(r"TORCHINDUCTOR_(?!CACHE_DIR|COMPILE_THREADS)|TORCH_COMPILE|CXXFLAGS|CPPFLAGS")

_ISA_FLAG = re.compile(r"(?:avx|sse|amx|fma|f16c|ssse|sve|asimd|bf16|i8mm|neon|vnni)\w*|sme\d?")
_LIBRARIES = re.compile(
    r"oneAPI Math Kernel Library Version [^,\n]+|MKL-DNN v\S+ \(Git Hash \w+\)|ARM Compute Library\S*"
)
_PROCESSOR_KEYS = (
    "vendor_id", "cpu family", "model", "model name", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
)  # fmt: skip
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What a worker's bytes depend on.

    Attributes:
        id: letters, digits, points, dashes and underscores; equal for equal details.
        details: sorted "key: value" lines.
    """

    id: str
    details: tuple[str, ...]


def configure_torch(settings: Settings) -> None:
    """Configure kernel selection for the whole process: threads, and neither TF32 nor algorithm benchmarks on CUDA."""
    torch.set_num_threads(settings.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def read_numerics(settings: Settings, environment: Mapping[str, str] = os.environ) -> Numerics:
    """Determine the numerics of this process under these settings."""
    device = torch.device(settings.device)
    layout = settings.layout
    details = {"device": device.type, "precision": settings.precision, "layout": layout, "torch": torch.__version__}
    if settings.compiled:  # what compiled code depends on in addition to the processor and torch
        details |= {f"cap {name}": value for name, value in environment.items() if _COMPILER_CAP.match(name)}
        details["compiled by"] = compiler_version()
    if settings.folded:  # whatever the model has, so that the name depends on settings alone
        details["folded"] = "batch normalisation"
    details |= _read_cuda(device) if device.type == "cuda" else _read_cpu(settings.threads)
    details |= {f"cap {name}": environment[name] for name in _CAPS if name in environment}
    lines = tuple(f"{key}: {value}" for key, value in sorted(details.items()))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
    version = re.sub(r"[^0-9.]", "", torch.__version__.split("+")[0])
    changes = f"{'-folded' if settings.folded else ''}{'-compiled' if settings.compiled else ''}"
    how = f"{settings.precision}-{layout}{changes}"
    kind = _kind_of(device, settings.threads, environment, how)
    return Numerics(id=f"{kind}-torch{version}-{digest}", details=lines)


def _kind_of(device: torch.device, threads: int, environment: Mapping[str, str], how: str) -> str:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"cuda-sm{major}{minor}-{how}"
    instructions = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "_")
    cap = environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA")
    capped = f"_onednn_{cap.lower()}" if cap else ""
    instructions = re.sub(r"[^a-z0-9_]", "_", instructions + capped)
    return f"cpu-{instructions}-{how}-t{threads}"


def _read_cpu(threads: int) -> dict[str, str]:
    return {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(threads),
        "libraries": "; ".join(_LIBRARIES.findall(torch.__config__.show())),
        "onednn": str(torch.backends.mkldnn.is_available()),  # type: ignore[no-untyped-call]
        "float32 matmul": torch.get_float32_matmul_precision(),
        "caches": " ".join(_read_caches()),
    } | _read_processor()


def _read_processor() -> dict[str, str]:
    """Identify the first processor, by /proc/cpuinfo or else by the platform module."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {"processor": f"{platform.machine()} {platform.processor()}"}
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = fields.get("flags", fields.get("Features", "")).split()
    instructions = " ".join(sorted(flag for flag in flags if _ISA_FLAG.fullmatch(flag)))
    known = {f"processor {key}": fields[key] for key in _PROCESSOR_KEYS if key in fields}
    return known | {"processor": platform.machine(), "processor instructions": instructions}


def _read_caches() -> Iterator[str]:
    """Read the sizes of the first processor's caches, which determine the blocking of matrix products."""
    for size in sorted(_CACHES.glob("index*/size")):
        try:
            yield size.read_text(encoding="utf-8").strip()
        except OSError:
            continue


def _read_cuda(device: torch.device) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu capability": f"{properties.major}.{properties.minor}",
        "gpu multiprocessors": str(properties.multi_processor_count),
        "cuda": str(torch.version.cuda),
        "cublas": _read_cublas(),
        "driver": _read_driver(),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "float32 matmul": torch.get_float32_matmul_precision(),
        "tf32": str(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
    }


def _read_driver() -> str:
    """Read the version of NVIDIA's kernel module; "unknown" if it cannot be read."""
    try:
        found = re.search(r"Kernel Module.*?(\d+(?:\.\d+)+)", _DRIVER.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return "unknown"
    return found[1] if found else "unknown"


def _read_cublas() -> str:
    """Name the installed packages of cuBLAS, which may be newer than the CUDA torch was built with."""
    packages = importlib.metadata.distributions()
    names = {(str(package.metadata["Name"]), package.version) for package in packages}
    return " ".join(sorted(f"{name} {version}" for name, version in names if name.startswith("nvidia-cublas")))
