"""Generated code of the private contract between gateway and worker."""
