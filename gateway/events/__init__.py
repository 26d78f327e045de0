"""The journal in which uploads and their deliveries survive, and the runner.

`database` owns the one SQLite connection, `schema` its tables, `journal` the named questions and
changes, `runner` claims deliveries and runs handlers.
"""
