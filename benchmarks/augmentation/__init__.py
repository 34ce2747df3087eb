"""Benchmarks of augmentation: rates of augmented rows compared with one process, and of files with the bare stream.

A model store enters; `python -m benchmarks.augmentation` writes a table of ratios measured in one run.
"""
