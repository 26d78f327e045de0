"""Warns where uploads to different paths are stored under one path: a variable is in no stored path."""

from __future__ import annotations

import dis
from collections.abc import Iterable, Iterator
from types import CodeType

from gateway.domain.model import UPLOADING
from gateway.domain.path_template import UploadPathTemplate
from gateway.plugins.handler import Handler


def shared_names_warning(template: UploadPathTemplate, handlers: Iterable[Handler]) -> str | None:
    """Return a sentence for the operator, None where paths stay apart or some handler rewrites them."""
    variables = template.unstored_variables
    if not variables or any(_rewrites_path(h.code) for h in handlers if h.event == UPLOADING):
        return None
    named = " and ".join(f"{{{name}}}" for name in variables)
    best = "/upload/" + "/".join(f"{{{part.text}}}" for part in template.segments if part.kind)
    return (
        f"uploads with different {named} share their stored paths, and one replaces the other's file:"
        f" add --stored-path '{best}', or a handler of {UPLOADING} that rewrites event['path']"
    )


def _rewrites_path(code: CodeType | None) -> bool:
    """Tell whether a script assigns to a key and names `path`: it may rewrite the path, as a webhook."""
    return code is None or any(
        "path" in part.co_consts
        and any(instruction.opname == "STORE_SUBSCR" for instruction in dis.get_instructions(part))
        for part in _parts(code)
    )


def _parts(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those of its functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
