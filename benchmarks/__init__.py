"""Benchmarks: how near Fount comes to its hardware, and to TorchServe without it.

Enter: a model of the store and this machine. Leave: ratios measured in one run, as a table and as raw rounds. Run it
with `python -m benchmarks`; README.md says what each row means.
"""
