"""Plugins room: the operator's YAML files -> checked, compiled, one generation.

One rule: what is in force was loaded whole and without a fault. Knows nothing of uploads or doors.
May import `scripting` and below.
"""

from gateway.plugins.handlers import Handler
from gateway.plugins.kinds import KINDS, Kind, Material, Parsed, validate
from gateway.plugins.loader import Generation, Plugins
from gateway.plugins.yaml_documents import Document, PluginFaults

__all__ = [
    "KINDS",
    "Document",
    "Generation",
    "Handler",
    "Kind",
    "Material",
    "Parsed",
    "PluginFaults",
    "Plugins",
    "validate",
]
