"""Generated code of the private contract between evaluation runner and gateway."""
