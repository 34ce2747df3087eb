"""Benchmarks: Fount compared with its hardware, and with TorchServe alone.

A model of the store enters; ratios measured in one run leave, as a table and as raw rounds. Run them with
`python -m benchmarks`; README.md explains each row.
"""
