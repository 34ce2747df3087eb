"""Load a model: from a card and its files to a module with its weights.

An unpacked archive or model folder enters; a module that may serve leaves, or the reason why it may not.
"""
