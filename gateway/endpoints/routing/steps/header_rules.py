"""The steps that remove and set header fields: of requests to upstreams, and of responses to clients.

Bodies stream past them. Sources: RFC 9110 sections 5.5 and 7.6.1.
"""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDict

from gateway.domain.addresses import host_name
from gateway.endpoints.routing.forwarding import FRAMING, GATEWAY_PREFIX, UNDERSCORE, is_hop_by_hop
from gateway.endpoints.routing.model import Next, RequestContext
from gateway.endpoints.routing.rules import HeaderRules
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse

PLACEHOLDERS: Final = ("principal", "remote", "request_id")
"""What a value may hold in braces: the name and the address of the caller, and the id of the request."""

_WRITTEN_ANEW: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-request-id"})
"""Fields of requests that the gateway writes behind all steps."""

_SET_IF_MISSING: Final = frozenset({"x-forwarded-host", "x-forwarded-proto"})

_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


async def change_request(context: RequestContext, call_next: Next) -> GatewayResponse:
    """Change the fields that go upstream. A client cannot set one that the rules set, in any spelling.

    Raises `Refusal("forbidden")` for a caller whose name no header can have.
    """
    rules = context.route.request_headers
    if rules:
        values = _values(rules, context)
        replaced = {_plain(name) for name in (*rules.remove, *rules.set)}
        kept = ((name, text) for name, text in context.headers.items() if _plain(name) not in replaced)
        context.headers = CIMultiDict((*kept, *values.items()))
    return await call_next(context)


async def change_response(context: RequestContext, call_next: Next) -> GatewayResponse:
    """Change the fields of a response, but for refusals of the gateway itself. Raises as above."""
    rules = context.route.response_headers
    if not rules:
        return await call_next(context)
    values = _values(rules, context)  # what cannot be sent is refused before the upstream is called
    response = await call_next(context)
    for name in (*rules.remove, *rules.set):
        response.headers.popall(name, None)
    response.headers.update(values)
    return response


def _values(rules: HeaderRules, context: RequestContext) -> dict[str, str]:
    """Return what is set; a field with a value that this request does not have is left out."""
    values = {name: _filled(template, context) for name, template in rules.set.items()}
    return {name: value for name, value in values.items() if value is not None}


def _filled(template: str, context: RequestContext) -> str | None:
    names = set(_PLACEHOLDER.findall(template))
    if not names:
        return template
    texts = {name: _value(name, context) for name in names}
    if any(text is None for text in texts.values()):
        return None
    return _PLACEHOLDER.sub(lambda match: texts[match[1]] or "", template)


def _value(name: str, context: RequestContext) -> str | None:
    """Return the value of a placeholder; None for an unknown caller, and for a peer without address."""
    if name == "remote":
        return context.remote
    if name == "request_id":
        return context.incoming.facts.request_id
    caller: str | None = (context.principal or {}).get("name")
    if caller is not None and fault_of(caller) is not None:
        raise Refusal("forbidden", "the name of this caller cannot be sent in a header")
    return caller


def fault_of(value: str) -> str | None:
    """Return why no header can have this value: a reader would see another one, or more than one."""
    if _CONTROLS.search(value):
        return "has a line break or another control character"
    return "begins or ends with a blank" if value != value.strip() else None


def _plain(name: str) -> str:
    """Return a name as CGI and WSGI know it (RFC 3875 section 4.1.18)."""
    return name.lower().replace(UNDERSCORE, "-")


# -- at load


def name_fault(name: str, *, of_request: bool, is_set: bool) -> str | None:
    """Return why rules cannot set, or remove, the field of this name; None if they can."""
    key = name.lower()
    if of_request and key == "host":
        return None if is_set else "an HTTP request needs it: set another one"
    if is_hop_by_hop(key) or key in FRAMING:
        return "it is about the connection: HTTP sets it"
    if key.startswith(GATEWAY_PREFIX):
        return "names with X-Gateway- are the gateway's own"
    fixed = key in _WRITTEN_ANEW if of_request else key == "x-request-id"
    if fixed or (of_request and not is_set and key in _SET_IF_MISSING):
        return "the gateway sets it"
    return None


def value_fault(name: str, value: str) -> str | None:
    """Return what is wrong with a value that rules set, None for nothing."""
    unknown = [each for each in _PLACEHOLDER.findall(value) if each not in PLACEHOLDERS]
    if unknown:
        names = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
        return f"has an unknown {{{unknown[0]}}}: only {names} are replaced"
    if name.lower() == "host" and not host_name(value):
        return "must be host or host:port"
    return fault_of(value)
