"""The command `fount`: one module a command; options and the connection to the server are shared.

Command-line arguments enter; calls of `fount.client` and files or text leave.
"""
