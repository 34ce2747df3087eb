"""Measurement of a model's quality: metrics with 95 % intervals, for its card.

A model folder and a data set enter; quality entries leave.
"""
