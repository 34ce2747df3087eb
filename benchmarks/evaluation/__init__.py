"""Benchmarks of evaluation: statistics against other libraries, whole reports, planted faults."""
