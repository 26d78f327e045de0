"""Plugins make the gateway one for any HTTP API.

`plugin` reads the YAML, `table` finds the route of a request, `steps` is the order of what happens
to it, one file a step; `proxy` is the last of them. A step is `(exchange, next) -> answer`. May
import server, hooks, auth, plugins, scripting and the foundations; no other door.
"""
