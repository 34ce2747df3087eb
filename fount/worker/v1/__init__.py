"""Generated from protos/fount/worker/v1: what crosses between a gateway and a worker."""
