"""The pipeline: a specification enters, and small steps draw, read, compare and judge; a report leaves.

Each step leaves one file. Files are a cache: what is missing or damaged is made again with the same content, so that a
runner on another machine goes on with nothing but the database.
"""
