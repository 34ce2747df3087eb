"""Training tasks: the optimiser step of each kind of model.

Data and a configuration enter; losses and updated modules leave.
"""
