"""Finds unknown names in the scripts of all plugins that were loaded.

Syntax trees are built, which must not happen in two threads at once (see `plugins.scripting.compile`):
call it where no other thread runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.endpoints.routing.loading.plugin import KIND, AnyRoutePlugin
from gateway.endpoints.routing.loading.route_builder import ARGUMENTS
from gateway.endpoints.routing.scripts.compiler import function_source
from gateway.errors import ConfigError
from gateway.plugins.lint import lint_handler
from gateway.plugins.loader import PluginSet
from gateway.plugins.scripting.lint import undefined_names
from gateway.plugins.scripting.namespace import script_names


def script_faults(plugins: PluginSet) -> Iterator[ConfigError]:
    """Yield an error for each unknown name, and for each key that its event does not have."""
    for handler in plugins.all_handlers:
        if handler.code is not None:  # a webhook has no script
            yield from lint_handler(handler)
    for route in routes_of(plugins):
        for key in route.codes:
            source = function_source(route.document, key, ARGUMENTS[key])
            yield from undefined_names(source, script_names())


def routes_of(plugins: PluginSet) -> tuple[AnyRoutePlugin, ...]:
    """Return the routing plugins of a set."""
    return tuple(plugin for plugin in plugins.plugins[KIND] if isinstance(plugin, AnyRoutePlugin))
