"""Tuning: ways to run one model on this machine, each measured as a worker would run it.

A model folder enters; measurements leave, and the best of them as an entry of the file that workers read.
"""
