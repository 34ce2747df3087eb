"""The commands `fount pack`, `train`, `quality`, `new`, `check`, `convert` and `tune`.

Options enter; archives, model folders and reports leave.
"""
