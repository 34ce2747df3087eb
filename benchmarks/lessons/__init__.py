"""Lessons: generators with a known fault, and their evaluation.

Real rows and a classifier enter; model folders leave, which are packed and served like any other, and a table of their
evaluation compared with the shipped generators.
"""
