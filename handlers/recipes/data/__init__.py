"""Data sets for training: digits and MNIST.

A name and a folder enter; a `TrainingData` of training and test rows leaves.
"""
