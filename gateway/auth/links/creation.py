"""Makes links, for the API and for the command line, and says where they lead."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.auth.links.link import MAX_COUNT, Link, check_link_folder, new_link_id, new_link_secret
from gateway.auth.links.store import LinkStore
from gateway.auth.tokens import token_digest
from gateway.domain.links import LINK_KINDS, LinkKind
from gateway.domain.path_template import UploadPathTemplate

_ANY_NAME: Final = "name"


class LinkTerms(NamedTuple):
    """What a link shall be for. `lifetime` is in seconds, None for ever; `password_hash` None: none."""

    kind: str
    folder: str
    lifetime: float | None
    max_files: int | None = None
    max_bytes: int | None = None
    password_hash: str | None = None


class NewLink(NamedTuple):
    """A link and its secret, which nobody can tell again."""

    link: Link
    secret: str

    def url(self, base: str) -> str:
        """Return its URL. The secret is in the fragment, which no server and no log sees."""
        return f"{base}/-/{self.link.kind}#{self.secret}"


def create_link(
    store: LinkStore, terms: LinkTerms, template: UploadPathTemplate, creator: str | None, now: float
) -> NewLink:
    """Make a link and store it. Blocking. Raises `ValueError` for its terms, `ConfigError`."""
    kind = _kind(terms.kind)
    try:
        folder = check_link_folder(terms.folder)
    except ValueError as error:
        raise ValueError(f"folder: {error}") from None
    if kind == "drop" and upload_folder(template, folder) is None:
        raise ValueError(f"folder: no upload path of this gateway leads below {folder}")
    if kind == "share" and (terms.max_files is not None or terms.max_bytes is not None):
        raise ValueError("max_files and max_bytes limit uploads: a share link has none")
    if terms.lifetime is not None and not terms.lifetime > 0:
        raise ValueError("expires: a link that expires at once is of no use")
    for name, count in (("max_files", terms.max_files), ("max_bytes", terms.max_bytes)):
        if count is not None and not 0 < count <= MAX_COUNT:
            raise ValueError(f"{name}: must be at least 1, and at most 2^53")
    secret = new_link_secret()
    link = Link(
        new_link_id(),
        kind,
        folder,
        now,
        None if terms.lifetime is None else now + terms.lifetime,
        terms.max_files,
        terms.max_bytes,
        terms.password_hash,
        creator,
    )
    store.create(link, token_digest(secret))
    return NewLink(link, secret)


def upload_folder(template: UploadPathTemplate, folder: str) -> str | None:
    """Return the path, encoded, of the folder whose uploads are stored below `folder`.

    None where no upload is stored there under a name of its client's.
    """
    spelled = template.spell(folder + _ANY_NAME)
    if spelled is None or not spelled.endswith(f"/{_ANY_NAME}"):
        return None
    return spelled.removesuffix(_ANY_NAME)


def _kind(text: str) -> LinkKind:
    for kind in LINK_KINDS:
        if kind == text:
            return kind
    raise ValueError(f"kind: must be one of {', '.join(LINK_KINDS)}")
