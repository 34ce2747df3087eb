"""Model families, one file each: architecture, configuration and sampling together.

A card's family and configuration enter `load_family`; a module that samples, classifies or embeds leaves.
"""
