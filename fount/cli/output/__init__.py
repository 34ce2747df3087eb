"""Write samples and reports where a command was told to: picture grids, NPZ, folders, HTML.

Chunks of samples enter; whole files leave.
"""
