"""Path templates and servers of an OpenAPI document as templates of routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.domain.path_template import RouteTemplate
from gateway.endpoints.routing.specification.places import Place
from gateway.endpoints.routing.specification.source import Source

_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")


class PathTemplate(NamedTuple):
    """A path below a prefix, as a template of a route, and its variables.

    `variables` are the names in the document, and those in the template: letters, digits and `_`.
    """

    text: str
    variables: Mapping[str, str]


def path_template(source: Source, path: str, place: Place) -> PathTemplate:
    """Return the template of a path. Raises `ConfigError` for one that no route can have."""
    variables: dict[str, str] = {}
    for segment in path.split("/"):
        if ("{" in segment or "}" in segment) and not _VARIABLE.fullmatch(segment):
            message = "a variable is a whole segment of a path: name this one in `openapi.skip`"
            raise source.error(message, place)
    for name in _VARIABLE.findall(path):
        if name in variables:
            raise source.error(f"the path has the variable {{{name}}} twice", place)
        variables[name] = _identifier(name, set(variables.values()))
    text = _VARIABLE.sub(lambda match: f"{{{variables[match[1]]}}}", path)
    try:
        RouteTemplate.parse(text)
    except ValueError as error:
        raise source.error(f"the path {error}", place) from None
    return PathTemplate(text, variables)


def server_path(source: Source, servers: Any, place: Place) -> str:
    """Return the path of the first server's URL, without a slash at its end: `/v1`, or nothing."""
    url = _server_url(source, servers, place)
    try:
        path = unquote(urlsplit(url).path).rstrip("/")
        prefix = path if path[:1] in ("", "/") else f"/{path}"
        RouteTemplate.parse(prefix or "/")
    except ValueError as error:
        raise source.error(f"the path of the URL {error}", (*place, 0, "url")) from None
    return prefix


def server_authority(source: Source) -> tuple[str, str]:
    """Return the scheme and the host of the document's first server. Raises `ConfigError`."""
    url = _server_url(source, source.data.get("servers"), ("servers",))
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise source.error("the first server has no host: name an --upstream", ("servers",))
    return parts.scheme, parts.netloc


def _server_url(source: Source, servers: Any, place: Place) -> str:
    """Return the URL of the first server with the defaults of its variables; nothing for none."""
    listed = source.items(servers, place)
    if not listed:
        return ""
    server = source.mapping(listed[0], (*place, 0))
    url = server.get("url")
    if not isinstance(url, str):
        raise source.error("a server needs its `url`", (*place, 0))
    variables = source.mapping(server.get("variables"), (*place, 0, "variables"))
    for name in _VARIABLE.findall(url):
        variable = source.mapping(variables.get(name), (*place, 0, "variables", name))
        if "default" not in variable:
            raise source.error(f"the variable {{{name}}} of the URL needs its `default`", (*place, 0))
        url = url.replace(f"{{{name}}}", str(variable["default"]))
    return url


def _identifier(name: str, used: set[str]) -> str:
    """Return a name that a variable of a template can have: `enterprise-team` is `enterprise_team`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    if not plain.isidentifier():
        plain = f"_{plain}"
    number, free = 2, plain
    while free in used:
        free, number = f"{plain}_{number}", number + 1
    return free
