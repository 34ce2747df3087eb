"""The panels: evidence enters, metrics with their intervals, null distributions and verdicts leave.

Each panel answers one question (realism, diversity, memorisation, label fidelity). Its work is divided into metric
parts of a few seconds each: functions of the evidence that return JSON, so that each can be a step of a job. `registry`
lists the panels, their parts and metrics; `registry.evaluate_panel` turns the outputs of a panel's parts into metrics
and a verdict; `gates` parses and evaluates conditions on metrics.
"""
