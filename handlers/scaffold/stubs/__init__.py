"""Files that `fount new` copies into a model folder, for the user to change.

They are modules, so that the linter, the type checker and the tests check them.
"""
