"""The command line: a module for each command, with its arguments and what reads them.

``add_arguments(parser)`` declares them. ``prepare(arguments)`` reads all input, raises ValueError (one sentence) for
bad input, and returns what computes: a function without arguments that returns the exit code. What a command needs is
imported in ``prepare``, so that ``--help`` is quick.
"""
