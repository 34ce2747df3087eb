"""Generated from protos/fount/v1: the public contract."""
