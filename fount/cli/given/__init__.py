"""Commands over given rows: latents, what lies between and around them, scores and classes.

Image files, NPZ files or rows of a data set enter; a picture, an NPZ or CSV file, and a summary leave.
"""
