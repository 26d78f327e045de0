"""Names of header fields that proxies set: who sends a request, and that it came through one.

No proxy has to set any of them: that of a plain nginx `proxy_pass` cannot be recognised.
"""

from __future__ import annotations

from typing import Final

ORIGIN_NAMES: Final = frozenset(
    {
        "cf-connecting-ip", "cf-connecting-ipv6", "cf-ipcountry", "cf-pseudo-ipv4", "cf-visitor",
        "client-ip", "fastly-client-ip", "forwarded", "true-client-ip", "x-azure-clientip",
        "x-azure-socketip", "x-client-ip", "x-cluster-client-ip", "x-forwarded", "x-host",
        "x-original-for", "x-original-host", "x-original-ip", "x-original-method", "x-original-path",
        "x-original-prefix", "x-original-proto", "x-original-remote-addr", "x-original-scheme",
        "x-original-uri", "x-original-url", "x-proxyuser-ip", "x-real-ip", "x-rewrite-url",
    }
)  # fmt: skip
ORIGIN_PREFIXES: Final = (
    "fly-", "x-appengine-", "x-arr-", "x-envoy-", "x-forwarded-", "x-original-forwarded-",
)  # fmt: skip
"""Where a request came from, or what it asked for, before a proxy changed it: upstreams believe it, so
only a trusted proxy may say it. `X-Original-URL` and `X-Rewrite-URL` replace the path in some. Other
`X-Original-*` are of applications: `X-Original-Filename`."""

_FILE_NAME: Final = "x-forwarded-file"
"""The name of a file, which a published plugin sends with it."""

_TRACES: Final = frozenset(
    {"cdn-loop", "cf-ray", "via", "x-amz-cf-id", "x-amzn-trace-id", "x-cloud-trace-context"}
)
"""Traces of a proxy that nobody relies on."""


USUAL_NAMES: Final = frozenset(
    {
        "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection",
        "Content-Length", "Content-Type", "Cookie", "Host", "If-None-Match", "Origin", "Range",
        "Referer", "Transfer-Encoding", "User-Agent", "X-Auth-Token",
    }
)  # fmt: skip
"""Names as nearly all clients spell them; none is of a proxy. They are looked up all at a time."""


def tells_origin(name: str) -> bool:
    """Tell whether only a trusted proxy may set this header, whose name is in lower case."""
    return name in ORIGIN_NAMES or (name.startswith(ORIGIN_PREFIXES) and name != _FILE_NAME)


def shows_proxy(name: str) -> bool:
    """Tell whether a request with this header, whose name is in lower case, came through a proxy."""
    return tells_origin(name) or name in _TRACES
