"""The commands `fount serve`, `fount gateway`, `fount runner` and `fount demo`.

Options and environment variables enter; a running gateway or runner leaves.
"""
