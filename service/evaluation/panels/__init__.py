"""The panels: evidence becomes metrics, in parts that take a few seconds each.

A part is a function of the evidence and leaves JSON, so that it can be a step of a job; `results` turns what the
parts of a panel left into metrics and a verdict.
"""

from service.evaluation.panels.part import JSON, Facts, Part
from service.evaluation.panels.registry import FEWEST, METRICS, needs_answers, needs_neighbours, parts_of, results

__all__ = ["FEWEST", "JSON", "METRICS", "Facts", "Part", "needs_answers", "needs_neighbours", "parts_of", "results"]
