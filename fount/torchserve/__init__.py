"""Generated code of TorchServe's own messages."""
