"""Plans of augmented data sets and their rows, as a client sees them.

Plan files, tickets and messages enter; requests, `PlanInfo` and `RowBatch` values leave. A ticket is a plan in signed
form, which every gateway that has the key accepts for pulling its rows.
"""
