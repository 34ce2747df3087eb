"""Benchmarks of evaluation: statistics compared with other libraries, whole reports, and injected faults."""
