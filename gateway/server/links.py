"""Opens the links of one process: who has one is let through, and operators make and revoke them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from gateway.auth.authenticator import Auth
from gateway.auth.links.access import LinkAccess
from gateway.auth.links.passwords import LinkPasswords
from gateway.auth.signed_urls import StoredUrls
from gateway.endpoints.links.counts import LinkCounts
from gateway.endpoints.links.handler import LinksEndpoint
from gateway.endpoints.links.opening import LinkOpening
from gateway.endpoints.links.shared import SharedEndpoint
from gateway.http.responses import ApiHandler
from gateway.server.file_endpoints import ExistingFiles
from gateway.server.resources import Resources


def open_links(
    stack: AsyncExitStack, resources: Resources, auth: Auth, urls: StoredUrls, existing: ExistingFiles
) -> dict[str, ApiHandler]:
    """Let `auth` know the links; return the handlers of their endpoints. `stack` closes them."""
    settings, base = resources.settings, resources.base
    watcher = base.links
    stack.push_async_callback(asyncio.to_thread, watcher.close)
    watcher.start()
    access = auth.links = LinkAccess(watcher.holders, settings.upload_template)
    passwords = LinkPasswords(base.shared.rate_counters)
    stack.callback(passwords.close)
    counts = LinkCounts(resources.quotas.quotas.files)

    def url_base() -> str:
        return urls.base

    shared = SharedEndpoint(
        access, resources.parts.storage, existing.folders.archives, base.installation.urls, url_base
    )
    return {
        **LinksEndpoint(watcher, passwords, counts, settings.upload_template, url_base).handlers(),
        **LinkOpening(settings, auth, access, passwords, counts).handlers(),
        **shared.handlers(),
    }
