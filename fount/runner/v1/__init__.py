"""Generated from protos/fount/runner/v1: what crosses between a runner and a gateway."""
