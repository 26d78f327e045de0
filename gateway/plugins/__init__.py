"""Plugins: YAML documents, checked, compiled and swapped in as one set."""

from gateway.plugins.kinds import HANDLER, KINDS, Handler, Kind, ParsedPlugin, Plugin, validate
from gateway.plugins.loader import Plugins, PluginSet
from gateway.plugins.yaml_documents import Document, PluginErrors

__all__ = [
    "HANDLER",
    "KINDS",
    "Document",
    "Handler",
    "Kind",
    "ParsedPlugin",
    "Plugin",
    "PluginErrors",
    "PluginSet",
    "Plugins",
    "validate",
]
