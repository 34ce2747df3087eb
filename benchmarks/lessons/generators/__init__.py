"""The classes of the generators: each file is copied into a model folder as its generator.py."""
