"""Uploads that are whole, durable, and not visible before their handlers have decided.

`holder` and `local_holder` record them, `decisions` carries out what was decided with a `store`,
`recovery` settles at start what a crash left.
"""
