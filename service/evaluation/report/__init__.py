"""The report: figures drawn from the evidence, a bundle that holds all a reader may see, and the page made of it."""
