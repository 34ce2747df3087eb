"""Model cards and model stores: YAML files that describe models, and the folders they lie in.

A `model.yaml` enters; a checked `Card` leaves.
"""
