"""Plugins and what the process provides for their scripts: the same in a gateway and in a worker."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import Final

from gateway.auth.installation import Installation
from gateway.auth.signed_urls import SignedUrlFactory
from gateway.endpoints.routing.loading.plugin import routing_kind
from gateway.endpoints.routing.loading.script_faults import script_faults
from gateway.files.service import FilesService
from gateway.plugins import KINDS, Plugins
from gateway.plugins.scripting.namespace import Services
from gateway.plugins.secrets import secret_keys
from gateway.records.collection import Records, secrets_of
from gateway.settings import Settings
from gateway.telemetry import log_output
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.plugins")

HOOKS_GRACE: Final = 1.0
"""Seconds that handlers in flight may go on once no request and no delivery needs them."""


def make_plugins(settings: Settings, stack: ExitStack) -> Plugins:
    """Return plugins that are not loaded yet; logs mask their secrets and those of the settings."""
    issuer = settings.jwt_issuer is not None
    kinds = (*KINDS, routing_kind(settings.file_upload_api_path, issuer=issuer))
    plugins = Plugins(settings.plugins, Services(), kinds, partial(secret_keys, settings))
    plugins.mask.add_secrets(key.get_secret_value() for key in settings.secrets_key)
    plugins.mask.add_secrets(secrets_of(settings))
    log_output.set_mask(plugins.mask)
    stack.callback(plugins.close)
    return plugins


def connect_services(
    services: Services,
    files: FilesService,
    records: Records,
    links: SignedUrlFactory,
    installation: Installation,
) -> None:
    """Set what scripts find in their namespace. Call before the plugins are loaded."""
    services.files = files
    services.records = records
    services.sign_url = links.sign_url
    services.credentials_for = installation.credentials_for


def load_plugins(plugins: Plugins, *, warns: bool = True) -> None:
    """Load the plugins, and log the names in scripts that nothing defines. Raises `ConfigError`.

    Such names are errors for `gateway check`; a script may still never come to their line.
    """
    plugins.load()
    for fault in script_faults(plugins.current) if warns else ():
        log.warning("%s", fault, extra=event("script.faulty", file=fault.file, line=fault.line))
