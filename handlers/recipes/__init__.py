"""Training recipes: data and a seed enter; a model folder with card, weights and golden samples leaves.

Each recipe is one entry of `handlers.recipes.catalogue`. Equal recipe, seed, steps and machine give equal weights.
"""
