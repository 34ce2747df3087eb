"""Prove a loaded model: golden samples, and batch sizes at which rows do not depend on each other.

A loaded network enters; a profile or a failure leaves.
"""
