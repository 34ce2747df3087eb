"""The worker pool over TorchServe: processes, connections, worker.v1 messages and the choice of replicas.

A `Call` enters `pool`, a `Reply` leaves; `embedded` also starts, supervises and stops the TorchServe processes.
"""
