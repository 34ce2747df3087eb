"""Run a model on rows: batch planning, numerics, compilation, steps.

Rows with addresses and labels enter; float32 arrays leave.
"""
