"""Streams of given rows: latents, what lies between and around them, scores, class probabilities and translations.

Arguments with their rows, and the messages of the latent, scoring and translation services, enter; requests and arrays
leave.
"""
