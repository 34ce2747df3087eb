"""Evaluation jobs: kept in a database, queued, run step by step by whichever runner is alive.

A specification enters; records leave, as often as they change, and a report in the end. Servicers see `Evaluations`
alone; the engine that makes jobs durable is behind it.
"""
