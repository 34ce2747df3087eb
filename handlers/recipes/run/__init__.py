"""A training run: steps, checkpoints, probes and the signs of divergence.

A task enters; a trained module and the history of its run leave.
"""
