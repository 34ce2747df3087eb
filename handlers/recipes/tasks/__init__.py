"""Training tasks: what one optimiser step of each kind of model is.

Data and a configuration enter; losses and updated modules leave.
"""
