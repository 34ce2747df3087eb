"""Generated from protos/fount/torchserve/v1: the few TorchServe messages the pool sends."""
