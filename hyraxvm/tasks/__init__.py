"""The Invoke tasks: they parse, call `hyraxvm` and report.  `tasks.py` gathers them.

A task imports what it calls inside its function, so that `./inv --list` need not wait for it.
"""
