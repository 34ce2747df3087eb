"""Streams of given rows: latents, what lies between and around them, scores and class probabilities.

Arguments with their rows, and the messages of `LatentService` and `ScoringService`, enter; requests and arrays leave.
"""
