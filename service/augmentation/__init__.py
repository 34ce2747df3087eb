"""Augmentation: a labelled data set made larger, balanced or varied, in rows that can be made again at any time.

A specification enters; a plan of exact slots leaves with a ticket, from which any gateway makes the rows.
"""
