"""Training runs: optimiser steps, checkpoints, probes, pictures, and detection of divergence and collapse.

A task enters; a trained module and the history of its run leave.
"""
