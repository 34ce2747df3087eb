"""Augmentation: a labelled data set made larger, balanced or varied, as rows that can be had again.

Wishes enter; a plan of exact slots leaves with a ticket, and its rows are made for whoever holds it, by any gateway.
"""
