"""The gateway: what stands between gRPC clients and TorchServe workers. Never imports torch.

Requests of fount.v1 enter through the servicers; packed calls of worker.v1 leave through the worker pool.
"""
