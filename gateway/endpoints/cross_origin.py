"""Which pages of other origins may use an endpoint for files: decided here, by the path alone.

Upload paths, whatever is done there, stored paths and the status of uploads follow `--cors-origins`;
signed URLs of stored paths, and the uploads that they begin, are taken from any page. Routes have
policies of their own (`routing.steps`).
"""

from __future__ import annotations

from typing import Final

from gateway.domain.api_routes import OBJECTS_PREFIX
from gateway.domain.partial import UPLOAD_QUERY
from gateway.errors import Refusal
from gateway.http.cors import SIGNED_URLS, CorsPolicy, files_policy
from gateway.settings import Settings
from gateway.signing.targets import carries_signature

FILE_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")
"""What a page may ask for at an upload path. Where one is switched off, the page reads the refusal."""

STATUS_METHODS: Final = ("GET", "HEAD")
_STATUS_PREFIX: Final = "/-/uploads/"


class CrossOrigin:
    """Finds the policy of a path. `files` is that of every upload path; None where no page may."""

    def __init__(self, settings: Settings) -> None:
        self._template = settings.upload_template
        self.files = files_policy(settings.cors_origins, FILE_METHODS)
        self._status = files_policy(settings.cors_origins, STATUS_METHODS)

    def policy(self, raw_path: str, raw_query: str) -> CorsPolicy | None:
        """Return the policy of a target that is still encoded; None where its endpoint has none here."""
        if raw_path.startswith(f"{OBJECTS_PREFIX}/"):
            # The secret of an upload resource stands for the signature that began it.
            is_signed = carries_signature(raw_query) or f"{UPLOAD_QUERY}=" in raw_query
            return SIGNED_URLS if is_signed else self.files
        if self.files is None:
            return None
        if raw_path.startswith("/-/"):
            return self._status if raw_path.startswith(_STATUS_PREFIX) else None
        return self.files if self._is_upload_path(raw_path) else None

    def _is_upload_path(self, raw_path: str) -> bool:
        """Tell whether a path has the shape of the template: one of a bad name, or of a folder, has."""
        if raw_path == "/":
            return False
        try:
            return self._template.match(raw_path) is not None
        except Refusal:
            return True
