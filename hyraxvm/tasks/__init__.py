"""The Invoke tasks: thin, they parse, call `hyraxvm` and report.  `tasks.py` gathers them.

A task imports what it calls where it calls it: `./inv --list` must not wait for all of it.
"""
