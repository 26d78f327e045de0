"""Settings of what clients may do with stored files: the group "Downloads" of the table."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator

from gateway.settings import values
from gateway.settings.option import Option

DOWNLOADS: Final = "Downloads"


class DownloadSettings(BaseModel):
    """Whether stored files are served, listed and removed over HTTP. All of it is off by default."""

    downloads: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(DOWNLOADS, "serve files by GET and HEAD of upload paths", "true|false"),
    ] = False
    listing: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(DOWNLOADS, "list folders by GET of an upload path with a slash at its end", "true|false"),
    ] = False
    deletes: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(DOWNLOADS, "remove files by DELETE of upload paths", "true|false"),
    ] = False
