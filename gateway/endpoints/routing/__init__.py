"""Routes of plugins: the gateway in front of any HTTP API, as a reverse proxy or by scripts.

`loading` makes routes of the YAML, `table` finds the route of a request, `handler` runs its `steps` in
order. A step is `(context, call_next) -> response`: those of `validation` check what is sent, those of
`scripts` run a route's code, `proxy` is the last. Small requests of plain routes take `short_path`.
"""
