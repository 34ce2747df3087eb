"""Telemetry: Prometheus metrics, and the HTTP side port that serves them with health checks.

Calls and their outcomes enter; metrics and health responses leave.
"""
