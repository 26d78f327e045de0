"""What the path of a request names: a file, or a folder in which a creation gets a name."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import quote

from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.endpoints.uploads.resumable.operations import UploadTarget
from gateway.errors import Refusal

_ANY_NAME = "name"


@dataclass(slots=True, frozen=True)
class UploadPlace:
    """The place of an upload; `match` is None for a folder. `raw_path` is still encoded.

    With `signed_only` nothing but signed URLs, and gateways of the installation, may create one there.
    """

    template: UploadPathTemplate
    raw_path: str
    match: PathMatch | None
    signed_only: bool = False

    @classmethod
    def find(cls, template: UploadPathTemplate, raw_path: str) -> UploadPlace | None:
        """Return the place of a path, None for no upload path.

        Raises `Refusal("bad_path")` for one of the template's shape with an invalid name.
        """
        if raw_path == "/":
            return None
        if raw_path.endswith("/"):
            # An empty name is refused where a template matches it: such a path is a folder.
            in_folder = template.match(raw_path + _ANY_NAME)
            if in_folder is None or not in_folder.path.endswith(f"/{_ANY_NAME}"):
                return None  # what comes last in the URL does not name the file
            return cls(template, raw_path, None)
        match = template.match(raw_path)
        return None if match is None else cls(template, raw_path, match)

    def target(self, filename: str | None) -> UploadTarget:
        """Return the file of a creation: in a folder that of `filename`, else one with a UUID.

        Raises `Refusal("bad_path")`.
        """
        if self.match is not None:
            return UploadTarget(self.match, self.raw_path, signed_only=self.signed_only)
        name = filename or str(uuid.uuid4())
        raw_path = self.raw_path + quote(name)
        match = self.template.match(raw_path)
        if match is None:
            raise Refusal("bad_path", "the name of the file is none below this path")
        return UploadTarget(match, raw_path, named_by_gateway=not filename)
