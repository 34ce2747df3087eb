"""Generated code of the private contract among gateways that share a ticket key."""
