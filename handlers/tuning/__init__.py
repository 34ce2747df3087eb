"""Tuning: measure the ways to run one model on this machine, each as a worker would run it.

A model folder enters; measurements leave, the best of which becomes the model's entry in `workers.yaml`.
"""
