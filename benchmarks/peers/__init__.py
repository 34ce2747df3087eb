"""Peers: other model servers from PyPI that serve the measured model, each as its documentation recommends.

A folder with the unpacked model enters; running servers leave, or none where they cannot be installed.
"""
