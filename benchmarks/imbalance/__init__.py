"""The imbalance experiment: MNIST with 1 % of one class, and six ways to train a classifier on it.

The real files enter; a table and a picture of the scores on the unchanged test rows leave, every number with an
interval over seeds. Rows are pulled from a running `fount serve`, as in any training pipeline.
"""
