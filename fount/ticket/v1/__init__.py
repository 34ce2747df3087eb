"""Generated from protos/fount/ticket/v1: what a ticket of a plan holds."""
