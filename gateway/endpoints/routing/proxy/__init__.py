"""The last step of a route: a request goes to an upstream, its response comes back.

`proxy` chooses the upstream, `upstream_call` asks it: over a connection of aiohttp's client (`request`,
`response`), or over a plain one for a small whole request (`plain_call`, `pool`, `connection`).
"""
