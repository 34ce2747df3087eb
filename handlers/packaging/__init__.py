"""Pack model folders into archives, and convert checkpoints into safetensors.

A model folder enters; a `.mar` archive leaves.
"""
