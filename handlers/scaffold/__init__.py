"""A model folder to begin with: `fount new`.

What a person asked for enters; a folder leaves that can be checked, packed and served at once, with untrained weights.
"""
