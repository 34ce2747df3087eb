"""The scaffold of `fount new`: a model folder for a user's own generator.

Options enter; a folder leaves that can be checked, packed and served at once, with untrained weights.
"""
