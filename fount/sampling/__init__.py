"""One `Sample` request: built from arguments, streamed, decoded into arrays.

Arguments and `SampleResponse` messages enter; requests and `Chunk` values leave.
"""
