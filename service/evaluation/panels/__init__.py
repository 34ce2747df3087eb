"""The panels: evidence becomes metrics, in parts that take a few seconds each.

A part is a function of the evidence and leaves JSON, so that it can be a step of a job; `Panels.results` turns what the
parts of a panel left into metrics and a verdict.
"""
