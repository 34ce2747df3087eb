"""Exporting: the rows of a plan enter as batches, and leave as files that other programs read.

A folder of an export is made of parts, each a fixed range of rows: a part that is there is whole, and one that is
missing can be made again alone, so that an export that was killed goes on where it was.
"""
