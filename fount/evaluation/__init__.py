"""Evaluation jobs as a client sees them: requests, status and reports.

Arguments and messages enter; requests and frozen values leave.
"""
