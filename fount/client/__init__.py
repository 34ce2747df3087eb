"""The gRPC client, synchronous and for asyncio.

Python arguments enter; frozen values and arrays leave. Retries and resumed streams are handled here.
"""
