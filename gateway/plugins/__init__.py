"""Plugins: YAML documents, checked, compiled and swapped in as one set."""

from gateway.plugins.handler import Handler
from gateway.plugins.kinds import Kind, ParsedPlugin, Plugin, validate
from gateway.plugins.loader import Plugins
from gateway.plugins.own_kinds import KINDS
from gateway.plugins.yaml_documents import Document, PluginErrors

__all__ = [
    "KINDS",
    "Document",
    "Handler",
    "Kind",
    "ParsedPlugin",
    "Plugin",
    "PluginErrors",
    "Plugins",
    "validate",
]
