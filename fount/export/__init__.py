"""Export a plan: its rows enter as batches from the gateway, and leave as files that other programs read.

An export is written in parts, each a fixed range of rows. A part that exists is complete and one that is missing can be
written alone, so an interrupted export resumes where it stopped.
"""
