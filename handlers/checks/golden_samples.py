"""The check `golden`: known samples are recorded beside the card, for workers to compare with when they load.

They are written only when nothing failed. Those that are there and still come out are left as they are, so that a
model's golden samples stay those of the machine it was made on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from handlers.checks.finding import Finding, failed, passed
from handlers.checks.subject import Subject
from handlers.execution.network import Network, build_network
from handlers.execution.numerics import configure_torch, read_numerics
from handlers.loading.build import build_module
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.golden import GOLDEN_COUNT, GoldenError, check_golden, is_golden_stale, record_golden
from handlers.verification.profile import ProfileError, measure_profile

__all__ = ["check_golden_samples"]

CHECK = "golden"


def check_golden_samples(subject: Subject) -> Finding:
    """Compare the golden samples that are there, or record them."""
    file = subject.folder / subject.card.golden.file
    if file.is_file() and not is_golden_stale(subject.card, subject.folder):
        return _compare(subject, file)
    return _record(subject, file) if subject.record else passed(CHECK, f"{file.name} is not recorded, as asked")


def _compare(subject: Subject, file: Path) -> Finding:
    """Draw the golden samples again, as a worker does; on the CPU, where they are recorded."""
    network = subject.network
    try:
        if subject.settings == Settings():
            sizes = subject.profile.exec_batch_sizes
        else:
            configure_torch(Settings())
            network = _build_plain(subject)
            sizes = measure_profile(network).exec_batch_sizes
        check_golden(file, network, sizes, "", read_numerics(Settings()), State(folder=None))
    except (GoldenError, ProfileError) as error:
        change = f"if the model was changed on purpose, delete {file.name} and check again; else restore what it was"
        return failed(CHECK, str(error), change)
    return passed(CHECK, f"{file.name} comes out as recorded, and is kept")


def _record(subject: Subject, file: Path) -> Finding:
    """Record whole or not at all."""
    known = subject.golden_images()
    images = None
    if not subject.samples:
        images = known if known is not None and len(known) == GOLDEN_COUNT else subject.noise_images(GOLDEN_COUNT)
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".golden-") as folder:
            written = Path(folder) / file.name
            module = build_module(subject.card, subject.folder)
            record_golden(subject.card, module, written, images=images, folder=subject.folder)
            written.replace(file)
    except (GoldenError, ProfileError) as error:
        return failed(CHECK, str(error), "mend what the checks above name")
    except OSError as error:
        return failed(CHECK, f"{file} cannot be written: {error.strerror}", "make the model's folder writable")
    return passed(CHECK, f"{GOLDEN_COUNT} samples recorded in {file.name}")


def _build_plain(subject: Subject) -> Network:
    return build_network(subject.card, build_module(subject.card, subject.folder), Settings())
