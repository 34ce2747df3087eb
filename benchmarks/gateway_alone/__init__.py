"""The gateway and the client without workers: their CPU time and rates, next to bare gRPC with the same messages.

`servers` runs a gateway over instant workers, or a server that replays its bytes; `client` puts a load on either.
"""
