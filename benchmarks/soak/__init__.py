"""The soak test: Fount under full load while its processes are killed at random.

Models of the store enter; `python -m benchmarks.soak` writes a report of requests, bytes, faults and recoveries.
"""
