"""The classes of the three generators: each file is copied into a model folder as its generator.py."""
