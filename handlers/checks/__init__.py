"""Checks that `fount check` runs on a model folder before the model is packed.

A model folder enters; one finding for each check leaves, and each failure names what to change. The model runs in a
child process as it would in a worker, so that its code cannot end the command.
"""
