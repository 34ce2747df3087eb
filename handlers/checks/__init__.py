"""Checks of a model before it is packed: does it do in a worker what it did in its notebook?

A model's folder enters; findings leave, one a check, each failure with what to change. A child process runs the model
as a worker would, so that nothing a model does can end the command that asks.
"""
