"""An experiment: MNIST with one class nearly gone, and six ways to train a classifier on what is left.

The real files enter; a table and a picture of what each way is worth on the untouched test rows leave, every number
with an interval over seeds. Rows come from a running `fount serve`, as any training pipeline would pull them.
"""
