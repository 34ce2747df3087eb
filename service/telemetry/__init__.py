"""Telemetry: what operations see.

Calls and their outcomes enter; Prometheus series, health answers and log records leave.
"""
