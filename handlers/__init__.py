"""Workers, packaging and training: everything that uses torch.

A worker.v1 request enters from TorchServe and its reply leaves; cards, weights and recipes become archives.
"""
