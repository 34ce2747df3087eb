"""Work on rows that a client gives: encoding, decoding, moving in the latent space, scores and class probabilities.

A resolved stream and its rows enter; pieces of results leave, in order. Workers encode and decode; what lies between is
arithmetic here.
"""
