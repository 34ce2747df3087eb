"""The pipeline: runs one evaluation in small steps, from its specification to its report.

A `Specification` enters; progress, results and the report leave through a `JobReporter`. Each step leaves one file.
Files are a cache: a missing or damaged one is made again with the same content, so that a runner on another machine can
continue an evaluation with the database alone.
"""
