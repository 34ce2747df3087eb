"""Plans of augmented data sets and their rows, as a client sees them.

Plan files, tickets and messages enter; requests, `PlanInfo` and `RowBatch` values leave.
"""
