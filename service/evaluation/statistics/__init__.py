"""The statistics: arrays in, numbers with their intervals out. Nothing here knows of jobs, workers or panels.

Every one that can be is a mergeable state, so that any split of the samples gives the same number; distances are taken
block by block, so that memory never grows with the square of the rows.
"""
