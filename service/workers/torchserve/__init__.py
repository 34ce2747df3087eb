"""TorchServe, behind one door: started, found, watched and spoken to here and nowhere else.

Calls enter; predictions of TorchServe's private gRPC leave. Clients never meet it.
"""
