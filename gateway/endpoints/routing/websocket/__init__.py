"""WebSocket connections (RFC 6455) of routes with `websocket: true`.

`call` sends a handshake to an upstream that `websockets` has chosen. Behind the `response` 101 a
`tunnel` carries bytes between two `tunnel_end`s, and reads of frames only their heads (`frames`).
"""
