"""How fast augmented rows come: against the same rows made in one process, and files against the bare stream.

A model store enters; `python -m benchmarks.augmentation` leaves a table of ratios measured in one run.
"""
