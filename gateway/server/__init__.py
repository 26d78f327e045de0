"""Processes and wiring: the app, the worker, the supervisor, and the resources that they open."""
