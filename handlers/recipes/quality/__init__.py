"""Measure the quality of a model: metrics with intervals, for its card.

A model folder and a data set enter; quality entries leave.
"""
