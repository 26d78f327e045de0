"""The setting `quotas`: how much each client may store, upload and request. See `table`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.domain.quotas import ADDRESS, PRINCIPAL, Quota, QuotaLimits
from gateway.domain.units import RequestRate, parse_rate
from gateway.settings import values
from gateway.settings.option import Option

LIMITS: Final = "Limits"

_FILE_NAMES: Final = frozenset({"filepath", "filename"})


def _rate(value: object) -> object:
    return parse_rate(value) if isinstance(value, str) else value


def _prefix(value: str) -> str:
    if not (value.startswith("/") and value.endswith("/")):
        raise ValueError("must be the path of a folder, with a slash at both ends: /upload/few/")
    return value


def _fields(value: object) -> object:
    """A quota given as `per=principal bytes=10G` on the command line or in the environment."""
    if not isinstance(value, str):
        return value
    pairs = [piece.partition("=") for piece in value.split()]
    if not pairs or any(not equals for _, equals, _ in pairs):
        raise ValueError("must look like per=principal bytes=10G files=1000")
    return {name: text for name, _, text in pairs}


_Size = Annotated[int, Field(ge=0), BeforeValidator(values.size)]


class QuotaSetting(BaseModel):
    """One quota: limits for each `per`, of what lies below `prefix`, or of both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per: Annotated[str, Field(min_length=1)] | None = None
    prefix: Annotated[str, AfterValidator(_prefix)] | None = None
    bytes: _Size | None = None
    files: Annotated[int, Field(ge=0)] | None = None
    bytes_per_day: _Size | None = None
    requests: Annotated[RequestRate, BeforeValidator(_rate)] | None = None

    @model_validator(mode="after")
    def _check(self) -> QuotaSetting:
        if self.per is None and self.prefix is None:
            raise ValueError("says not what counts together: add `per: principal` or `prefix: /folder/`")
        if all(x is None for x in (self.bytes, self.files, self.bytes_per_day, self.requests)):
            raise ValueError("has no limit: add bytes, files, bytes_per_day or requests")
        return self

    def rule(self) -> Quota:
        """Return the rule."""
        limits = QuotaLimits(self.bytes, self.files, self.bytes_per_day, self.requests)
        return Quota(limits, self.per, self.prefix)

    def fault(self, variables: list[str]) -> str | None:
        """Return what is wrong with `per`, given the variables of the upload path."""
        usable = [PRINCIPAL, ADDRESS, *(name for name in variables if name not in _FILE_NAMES)]
        if self.per is None or self.per in usable:
            return None
        return f"{self.per!r} must be {', '.join(usable[:-1])} or {usable[-1]}" + (
            "" if len(usable) > 2 else ", or a variable of --file_upload_api_path"
        )


class QuotaSettings(BaseModel):
    """The setting of quotas."""

    quotas: Annotated[
        tuple[Annotated[QuotaSetting, BeforeValidator(_fields)], ...],
        Option(
            LIMITS,
            "how much each principal, address or variable of the upload path, or what lies below a"
            " prefix, may have: `bytes` and `files` stored now, `bytes_per_day`, `requests` such as"
            " 100/m; in the file a list of `{per, prefix, bytes, files, bytes_per_day, requests}`"
            " (repeatable)",
            "'per=principal bytes=10G'",
            page="limit-what-clients-store",
        ),
    ] = ()

    @property
    def quota_rules(self) -> tuple[Quota, ...]:
        """The rules of `quotas`."""
        return tuple(quota.rule() for quota in self.quotas)


def repeated_scope(quotas: tuple[QuotaSetting, ...], index: int) -> bool:
    """Tell whether an earlier quota counts the same together."""
    scopes: list[Any] = [(quota.per, quota.prefix) for quota in quotas]
    return scopes[index] in scopes[:index]
