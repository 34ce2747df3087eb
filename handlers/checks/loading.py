"""The checks `card` and `weights`: the card can be read, the model can be built, and its weights are all there."""

from __future__ import annotations

from handlers.cards.card import CardError, check_weights, load_card
from handlers.checks.finding import Finding, failed, passed, warned
from handlers.checks.memory import resident_bytes, tell_bytes
from handlers.checks.subject import Subject
from handlers.execution.network import build_network
from handlers.execution.numerics import configure_torch
from handlers.loading.build import BuildError, build_module
from handlers.loading.memory import RoomError, check_room
from handlers.loading.weights import WeightsError
from handlers.models import UnknownFamilyError
from handlers.scaffold.template import keys_unwritten

__all__ = ["check_card", "check_weights_load"]


def check_card(subject: Subject) -> Finding:
    """Read the card; every problem is told at once."""
    try:
        card = load_card(subject.folder)
    except CardError as error:
        count = f"{len(error.problems)} problem{'s' * (len(error.problems) > 1)}"
        return failed("card", f"model.yaml has {count}", "\n".join(map(str, error.problems)), blocks=True)
    subject.card = card
    sample, classes = card.sample, len(card.classes)
    labels = f"{classes} classes" if classes else "no classes"
    shape = f"{sample.height}×{sample.width}×{sample.channels}"
    seen = f"{card.name} {card.version}: {card.family.name}, {shape}, {labels}"
    if unwritten := keys_unwritten(card):
        keys = ", ".join(unwritten)
        change = f"write in model.yaml what they ask for ({keys}): clients read it"
        return warned("card", f"{seen}\nstill the text that `fount new` put there: {keys}", change)
    return passed("card", seen)


def check_weights_load(subject: Subject) -> Finding:
    """Build the model as a worker does, with its weights."""
    card, folder = subject.card, subject.folder
    configure_torch(subject.settings)
    subject.resident_before = resident_bytes()
    try:
        check_room(folder / card.weights.file)  # first, since taking the digest of what cannot be loaded takes long
        check_weights(card, folder)
        subject.network = build_network(card, build_module(card, folder), subject.settings)
    except (BuildError, CardError, RoomError, UnknownFamilyError, WeightsError) as error:
        wrong, change = _cut(str(error) if not isinstance(error, CardError) else str(error.problems[0]))
        return failed("weights", wrong, change, blocks=True)
    module = subject.network.module
    count = sum(parameter.numel() for parameter in module.parameters())
    size = tell_bytes((folder / card.weights.file).stat().st_size)
    seen = f"{card.weights.file}: {count:,} parameters, {size}"
    return passed("weights", seen, numbers={"parameters": float(count)})


def _cut(sentence: str) -> tuple[str, str]:
    """Cut an error's sentence into what is wrong and the remedy, which follows its last semicolon."""
    wrong, _, change = sentence.rpartition("; ")
    return (wrong, change) if wrong else (sentence, "mend it, and check again")
