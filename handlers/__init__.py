"""The workers' side: torch lives here, and nothing of the gateway.

A worker.v1 request enters from TorchServe and its reply leaves; cards, weights and recipes become archives.
"""
