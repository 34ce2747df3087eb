"""Model cards and model stores: YAML files that describe models, and the folders that contain them.

A `model.yaml` enters; a checked `Card` leaves.
"""
