"""Files that `fount new` copies into a model folder, and its owner then changes.

They are modules here, so that what is copied has been read by the linter, the type checker and the tests.
"""
