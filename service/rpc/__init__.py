"""The servicers: fount.v1 on one side, domain values on the other, and nothing else.

RPCs enter; messages and statuses leave.
"""
