"""The checks in their order, with the question each answers and the checks each depends on; and how they are run.

A subject with a folder enters; one finding for each check leaves, in order. A check is skipped when one it depends on
blocks. When the model's own code raises, the check's finding names the error and its line, and later checks still run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from handlers.checks.conditions import check_conditions
from handlers.checks.loading import check_card, check_memory, check_weights_load
from handlers.checks.notebook import check_notebook
from handlers.checks.operations import check_operations
from handlers.checks.output import check_output, check_uses_label, check_uses_z
from handlers.checks.performance import check_batch_size, check_precisions, check_speed
from handlers.checks.report import Finding, failed, skipped
from handlers.checks.reproducibility import check_deterministic, check_rows
from handlers.checks.samples import check_golden_samples, check_picture
from handlers.checks.subject import Subject
from handlers.execution.errors import cause_of, describe_error, is_out_of_memory, remedy_for

__all__ = ["CHECKS", "Check", "run_checks"]

_SHAPE_WORDS = re.compile("shape|size|dimension|channels", re.IGNORECASE)  # in torch's message about a wrong z


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: one word.
        question: that it answers.
        run: returns its finding.
        needs: checks that must not have blocked.
        needs_all: whether every check before must have passed or warned.
    """

    name: str
    question: str
    run: Callable[[Subject], Finding]
    needs: tuple[str, ...] = ()
    needs_all: bool = False


CHECKS = (
    Check("card", "Can model.yaml be read?", check_card),
    Check("weights", "Can the model be built, with its weights?", check_weights_load, ("card",)),
    Check("output", "Do shape, type and range match the card, under every label?", check_output, ("weights",)),
    Check("notebook", "Are results equal to a direct call, and to a notebook's?", check_notebook, ("output",)),
    Check("rows", "Is a row independent of the other rows of its batch?", check_rows, ("output",)),
    Check("deterministic", "Does an address give the same bytes again?", check_deterministic, ("output",)),
    Check("operations", "Can it do what else the card lists, row by row?", check_operations, ("output",)),
    Check("conditions", "Do samples keep what they are given?", check_conditions, ("output",)),
    Check("uses-z", "Does z change the picture?", check_uses_z, ("deterministic",)),
    Check("uses-label", "Does the label change the picture?", check_uses_label, ("deterministic",)),
    Check(
        "batch-size",
        "Which batches may run, and which is the best?",
        check_batch_size,
        ("rows", "deterministic", "operations"),
    ),
    Check("precisions", "Is bf16 close enough to fp32?", check_precisions, ("batch-size",)),
    Check("memory", "How much memory does a worker take?", check_memory, ("batch-size",)),
    Check("speed", "How fast is it?", check_speed, ("batch-size",)),
    Check("picture", "What does it look like?", check_picture, ("output",)),
    Check("golden", "Are its golden samples recorded?", check_golden_samples, ("batch-size",), needs_all=True),
)
"""All checks, in the order they run."""


def run_checks(subject: Subject, begin: Callable[[str], None] = lambda name: None) -> Iterator[Finding]:
    """Run every check; `begin` is called with the name of a check before it runs."""
    blocked: set[str] = set()
    first_failed = ""
    for check in CHECKS:
        if missing := next((need for need in check.needs if need in blocked), ""):
            finding = skipped(check.name, f"needs {missing}", blocks=True)
        elif check.needs_all and first_failed:
            finding = skipped(check.name, f"not recorded while {first_failed} fails", blocks=True)
        else:
            begin(check.name)
            finding = _run(check, subject)
        if finding.blocks:
            blocked.add(check.name)
        if finding.state == "failed":
            first_failed = first_failed or check.name
        yield finding


def _run(check: Check, subject: Subject) -> Finding:
    """Run one check; an error of the model's code becomes its finding."""
    try:
        return check.run(subject)
    except (Exception, SystemExit) as raised:  # noqa: BLE001 - an author's code may raise anything
        error: BaseException = raised
    if is_out_of_memory(error):
        change = "lower limits.max_exec_batch in model.yaml, or check it on a machine with more memory"
        return failed(check.name, f"memory ran out: {describe_error(error)}", change, blocks=True)
    file = subject.source_file if check.name not in ("card", "weights") else None
    where = f"correct {file.name}" if file is not None else "correct the model"
    change = f"{where}: a worker passes z as (B, ...) floats, labels as (B,) int64, and any batch size B"
    if check.name == "output" and subject.card.latent and _SHAPE_WORDS.search(cause_of(error).message):
        latent = f"latent.shape in model.yaml is {list(subject.card.latent.shape)}"
        change = f"{latent}: if the module takes z of another shape, write that there; else {change}"
    change = remedy_for(error, change, is_program=bool(subject.export_advice))
    return failed(check.name, f"the model raised {describe_error(error, file)}", change, blocks=True)
