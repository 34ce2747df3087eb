"""Pack the measured model for Fount and for TorchServe alone: `python -m benchmarks.models PRECISION OUT`.

fp32 is the shipped model. Its card does not allow bf16, since that changes pixels by more than the tolerance of golden
samples; for bf16 a copy is packed whose card allows it and whose golden samples are recorded in bf16.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks.child import ROOT
from benchmarks.plan import MODEL, Precision
from fount.address import Addresses
from handlers.cards.card import load_card, write_card
from handlers.cards.digests import FINGERPRINT_KEY, golden_fingerprint
from handlers.execution.network import build_network
from handlers.execution.numerics import configure_torch, read_numerics
from handlers.execution.pixels import floats_to_uint8
from handlers.execution.rows import SampleRows
from handlers.loading.build import build_module
from handlers.packaging.pack import pack
from handlers.settings import Settings
from handlers.verification.golden import GOLDEN_COUNT, GOLDEN_SEED
from handlers.verification.profile import measure_profile

__all__ = ["main"]

_HANDLER, _PARTS = "torchserve_handler.py", ("torchserve_handler.py", "eager.py", "request_body.py")


def _copy_for_bf16(folder: Path) -> None:
    """Copy the shipped model, allow bf16, and record golden samples in bf16."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "model_store" / MODEL, folder)
    card = replace(load_card(folder), precisions=("fp32", "bf16"))
    write_card(card, folder)
    settings = Settings(precision="bf16")
    configure_torch(settings)
    network = build_network(card, build_module(card, folder), settings)
    size = next(each for each in reversed(measure_profile(network).exec_batch_sizes) if GOLDEN_COUNT % each == 0)
    indices = np.arange(GOLDEN_COUNT, dtype=np.int64)
    arrays: dict[str, NDArray[Any]] = {"seeds": np.full(GOLDEN_COUNT, GOLDEN_SEED, np.int64), "indices": indices}
    labels = indices % len(card.classes)
    rows = SampleRows(addresses=Addresses.of_range(GOLDEN_SEED, 0, GOLDEN_COUNT), labels=labels)
    starts = range(0, GOLDEN_COUNT, size)
    floats = np.concatenate([network.run("SAMPLE", rows.take(slice(start, start + size))) for start in starts])
    arrays |= {"labels": labels, "images": floats_to_uint8(floats, card.sample.value_range)}
    digest = "sha256:" + hashlib.sha256(floats.astype("<f4").tobytes()).hexdigest()
    metadata = {
        "numerics": read_numerics(settings).id,
        "float_digest": digest,
        FINGERPRINT_KEY: str(golden_fingerprint(card, folder)),
    }
    save_file(arrays, folder / card.golden.file, metadata)


def _pack_alone(archive: Path, out: Path) -> None:
    """Pack the archive into another one with a plain handler."""
    model = {"modelName": MODEL, "modelVersion": "1.0", "handler": _HANDLER}
    manifest = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out / f"{MODEL}.mar", "w") as target:
        target.write(archive, "fount.mar")
        for name in _PARTS:
            target.write(ROOT / "benchmarks" / name, name)
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))


def main(precision: Precision, out: Path) -> None:
    """Pack: OUT/archives for Fount, OUT/alone for TorchServe alone, OUT/unpacked for the limit."""
    folder = ROOT / "model_store" / MODEL
    if precision == "bf16":
        folder = out / "model_store" / MODEL
        _copy_for_bf16(folder)
    info = pack(folder, out / "archives")
    archive = out / "archives" / f"{info.name}-{info.version}.mar"
    _pack_alone(archive, out / "alone")
    shutil.rmtree(out / "unpacked", ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(out / "unpacked")


if __name__ == "__main__":
    main("bf16" if sys.argv[1] == "bf16" else "fp32", Path(sys.argv[2]))
