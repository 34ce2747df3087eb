"""The worker process: requests of the gateway, answered item by item.

The bytes of a `WorkerRequest` enter; the bytes of a `WorkerReply` leave.
"""
