"""Settings: the part of the table that tells whether files are handed out as well.

The rule is that of `table`, whose model these fields are part of.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator

from gateway.settings import values
from gateway.settings.option import Option

DOWNLOADS: Final = "Downloads"


class DownloadSettings(BaseModel):
    """The settings of downloads."""

    downloads: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(DOWNLOADS, "answer GET and HEAD of upload paths with the file", "true|false"),
    ] = False
