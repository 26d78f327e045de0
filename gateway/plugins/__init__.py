"""The operator's YAML files -> checked, compiled, one generation.

One rule: what is in force was loaded whole and without a fault. Knows nothing of uploads or doors.
"""

from gateway.plugins.handlers import Handler
from gateway.plugins.kinds import KINDS, Kind, Parsed, PluginContext, validate
from gateway.plugins.loader import Plugins, PluginSet
from gateway.plugins.yaml_documents import Document, PluginFaults

__all__ = [
    "KINDS",
    "Document",
    "Handler",
    "Kind",
    "Parsed",
    "PluginContext",
    "PluginFaults",
    "PluginSet",
    "Plugins",
    "validate",
]
