"""Settings of uploads and downloads: paths, conflicts, durability. See `table`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from gateway.domain.model import OnConflict
from gateway.settings import values
from gateway.settings.file_kinds import media_range, name_suffix
from gateway.settings.option import Option

UPLOADS: Final = "Uploads"
DOWNLOADS: Final = "Downloads"


class UploadSettings(BaseModel):
    """The groups of uploads and of downloads."""

    file_upload_api_path: Annotated[
        str,
        AfterValidator(values.template),
        Option(
            UPLOADS, "template of the upload path: literal segments and {name} variables", "TEMPLATE"
        ),
    ] = "/upload/{filepath}"
    stored_path: Annotated[
        str | None,
        Option(
            UPLOADS,
            "template of the path of stored files, such as /{tenant_id}/{filename}; it may have the"
            " variables of the upload path",
            "TEMPLATE",
            shown="/upload/ and the file name",
        ),
    ] = None
    on_conflict: Annotated[
        OnConflict,
        Option(
            UPLOADS, "if the file exists: replace it, reject (409) or rename", "replace|reject|rename"
        ),
    ] = "replace"
    types: Annotated[
        tuple[Annotated[str, AfterValidator(media_range)], ...],
        Option(
            UPLOADS,
            "media types that uploads may have, such as image/* (repeatable)",
            "TYPE",
            shown="any",
            page="allow-some-files-only",
        ),
    ] = ()
    suffixes: Annotated[
        tuple[Annotated[str, AfterValidator(name_suffix)], ...],
        Option(
            UPLOADS,
            "ends that the names of uploads may have, such as .pdf (repeatable)",
            "SUFFIX",
            shown="any",
            page="allow-some-files-only",
        ),
    ] = ()
    durability: Annotated[
        Literal["full", "none"],
        Option(
            UPLOADS,
            "full: on stable storage before 2xx; none: no fsync, power loss may lose files",
            "full|none",
        ),
    ] = "full"
    digest: Annotated[
        Literal["none", "crc32c", "sha256", "sha512", "sha1", "md5"],
        Option(
            UPLOADS,
            "digest that is computed for every upload, and told in its answer, status, events and"
            " downloads; sha256 doubles the processor time of a large upload, crc32c costs little",
            "none|crc32c|sha256|sha512|sha1|md5",
        ),
    ] = "none"
    file_mode: Annotated[
        int,
        Field(ge=0, le=0o777),
        BeforeValidator(values.octal),
        Option(UPLOADS, "permission bits of published files, octal", "MODE", shown="0640"),
    ] = 0o640

    resumable: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(
            UPLOADS,
            "let an upload go on after a break: IETF draft, tus, PUT with Content-Range",
            "on|off",
            shown="on",
        ),
    ] = True

    downloads: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(
            DOWNLOADS,
            "serve files by GET and HEAD: at upload paths, and each file below the directory at"
            " /-/objects",
            "true|false",
        ),
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

    @property
    def computed_digest(self) -> str | None:
        """The algorithm of `digest`, as in `domain.digests`; None where nothing is computed."""
        return None if self.digest == "none" else self.digest
