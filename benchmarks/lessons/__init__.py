"""Three generators that are wrong in a known way, and what an evaluation says of each.

Real rows and a classifier enter; three model folders leave, which are packed and served like any other, and a table of
what the panels found beside the shipped generators.
"""
