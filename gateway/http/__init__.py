"""HTTP on aiohttp: connection protocol, request bodies, responses, CORS, sockets, TLS."""
