"""Quotas of what is stored: reserved before a body is received, settled once it is published.

`writer` and `partials` wrap what stores uploads, `quotas` counts, `recovery` and `scan` settle what a
crash or a change by hand left.
"""
