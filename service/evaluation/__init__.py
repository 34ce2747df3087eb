"""Evaluation: is this generator realistic, diverse, and not a copy?

A request enters and becomes a specification; a runner draws samples through the gateway, has workers read them, and
panels turn what they saw into metrics, each with its interval and with what real data scores. A report leaves.
"""
