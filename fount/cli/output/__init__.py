"""Write results of commands: samples as image grid, NPZ or folder, reports as files, tables and JSON as text.

Chunks of samples, reports and client values enter; complete files and lines of text leave.
"""
