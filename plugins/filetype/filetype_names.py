"""Plugin filetype: what a file is declared to be, as sets of suffixes that mean the same bytes.

Suffixes are in lower case and without their dot.
"""

from __future__ import annotations

import mimetypes
from typing import Final, NamedTuple

from puremagic.main import magic_header_array

_GROUPS: Final = (
    "jpg jpeg jpe jfif",
    "tif tiff",
    "bmp dib",
    "heic heif hif avif",
    "mp4 m4v m4a m4b mov qt 3gp 3g2 3gpp f4v",
    "mpg mpeg mpe m1v m2v vob",
    "mp3 mp2 mpga",
    "ogg oga ogv ogx ogm opus spx",
    "mkv mka webm",
    "wmv wma asf",
    "aif aiff aifc",
    "doc dot rtf xls xlt ppt pps pot msg msi vsd pub mpp",
    "zip docx docm dotx xlsx xlsm xltx xlsb pptx pptm potx ppsx vsdx odt ods odp odg epub jar war apk"
    " ipa kmz whl xpi nupkg 3mf usdz cbz",
    "gz tgz svgz",
    "bz2 tbz2 tbz",
    "xz txz",
    "zst tzst",
    "exe dll sys scr com ocx cpl",
    "html htm xhtml",
    "pdf ai",
    "ps eps",
)
"""Suffixes whose first bytes are the same, or may be: containers are not looked into."""

_SAME: Final = {suffix: frozenset(group.split()) for group in _GROUPS for suffix in group.split()}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SIGNED: Final = _words(
    "jpg bmp png gif webp ico psd pdf zip doc gz bz2 xz zst 7z rar cab ogg mkv woff woff2 sqlite"
)
"""Suffixes, one of each group, of files that always begin with their signature."""

_TEXT_SUFFIXES: Final = _words(
    "txt text csv tsv md rst log json jsonl ndjson geojson xml xsd xsl svg html htm xhtml css js mjs"
    " py sh bash bat ps1 c h cc cpp hpp java go rs rb php pl lua sql yaml yml toml ini cfg conf env"
    " properties ics vcf srt vtt tex bib po"
)
_TEXT_TYPES: Final = _words(
    "application/json application/xml application/javascript application/ecmascript application/yaml"
    " application/x-yaml application/toml application/sql application/x-sh application/x-ndjson"
    " application/xhtml+xml"
)

_ALIASES: Final = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "application/x-pdf": "application/pdf",
    "application/x-zip-compressed": "application/zip",
    "application/gzip": "application/x-gzip",
    "application/x-gtar-compressed": "application/x-gzip",
    "audio/mp3": "audio/mpeg",
    "audio/wave": "audio/x-wav",
    "audio/wav": "audio/x-wav",
    "audio/x-m4a": "video/mp4",
    "audio/mp4": "video/mp4",
}

UNCHOSEN: Final = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"}
)
"""Types that say nothing of a file: what clients send when nobody said a type."""

_PLAIN: Final = mimetypes.MimeTypes(filenames=())
"""The types that Python knows, on every machine the same."""

_BY_TYPE: Final[dict[str, set[str]]] = {}
for _entry in magic_header_array:
    if _entry.mime_type and _entry.extension:
        _BY_TYPE.setdefault(_entry.mime_type, set()).add(_entry.extension.lstrip(".").lower())

_KNOWN: Final = frozenset(
    entry.extension.lstrip(".").lower() for entry in magic_header_array if entry.extension
)


class DeclaredType(NamedTuple):
    """What a client declares: `text` as it said it, and the suffixes that mean that.

    `is_text`: files of that type are text. `is_signed`: all of them begin with their signature.
    `is_known`: signatures of that type are known.
    """

    text: str
    suffixes: frozenset[str]
    is_text: bool = False
    is_signed: bool = False
    is_known: bool = False


def declared_types(path: str, content_type: str | None) -> list[DeclaredType]:
    """Return what name and Content-Type of a file declare. Both may say nothing."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    declared = [] if media_type in UNCHOSEN else [_of_type(media_type)]
    _, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return [*declared, _of_suffix(suffix.lower())] if dot and suffix else declared


def is_text_type(media_type: str) -> bool:
    """Tell whether files of a media type are text."""
    if media_type.startswith("text/") or media_type.endswith(("+json", "+xml")):
        return True
    return media_type in _TEXT_TYPES


def canonical_type(media_type: str) -> str:
    """Return the name of a media type that has several."""
    return _ALIASES.get(media_type, media_type)


def type_of_suffix(suffix: str) -> str | None:
    """Return the media type of a suffix, None where nobody knows one."""
    return _PLAIN.guess_type(f"a.{suffix}")[0]


def _of_suffix(suffix: str) -> DeclaredType:
    suffixes = _SAME.get(suffix, frozenset({suffix}))
    media_type = type_of_suffix(suffix)
    is_text = suffix in _TEXT_SUFFIXES or (media_type is not None and is_text_type(media_type))
    specific = suffix in _SAME or suffix in SIGNED
    specific = specific or media_type not in {None, "application/octet-stream"}
    is_signed = bool(suffixes & SIGNED)
    return DeclaredType(suffix, suffixes, is_text, is_signed, specific and bool(suffixes & _KNOWN))


def _of_type(media_type: str) -> DeclaredType:
    canonical = canonical_type(media_type)
    guessed = {suffix[1:] for suffix in _PLAIN.guess_all_extensions(canonical)}
    found = guessed | _BY_TYPE.get(canonical, set()) | _BY_TYPE.get(media_type, set())
    suffixes = frozenset(same for suffix in found for same in _SAME.get(suffix, {suffix}))
    is_text, is_signed = is_text_type(media_type), bool(suffixes & SIGNED)
    return DeclaredType(media_type, suffixes, is_text, is_signed, bool(suffixes & _KNOWN))
