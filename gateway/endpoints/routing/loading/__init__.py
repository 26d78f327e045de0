"""From the keys of a plugin to its routes, with the file and line of each fault.

`plugin` is the entry: `route_builder` makes one route, `openapi_plugin` one for each operation of a
document. `contradictions` compares all routes; `testing` runs the `tests:` of one.
"""
