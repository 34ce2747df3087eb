"""The scheduler: batch the rows of many streams into worker calls.

`Work` of many streams enters; batched calls go to the worker pool; each stream receives its pieces, in order.
"""
