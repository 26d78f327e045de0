"""Settings: the part of the table that tells where events are queued, who runs handlers, what is kept.

The rule is that of `table`, whose model these fields are part of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from gateway.settings import values
from gateway.settings.option import Option

EVENTS: Final = "Events and storage"

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EventSettings(BaseModel):
    """The settings of events."""

    events: Annotated[
        str,
        BeforeValidator(values.engine),
        Option(
            EVENTS,
            "where events are queued: the embedded journal, or NATS JetStream behind it",
            "journal|nats://HOST[:PORT][,...]",
            secret=True,
        ),
    ] = "journal"
    events_credentials: Annotated[
        Path | None,
        Option(
            EVENTS,
            "how NATS knows us: one line user:password or a token, or a .creds file",
            "FILE",
            path=True,
        ),
    ] = None
    events_ca: Annotated[
        Path | None,
        Option(EVENTS, "who signed the certificates of the NATS servers (PEM)", "FILE", path=True),
    ] = None
    events_prefix: Annotated[
        str,
        AfterValidator(values.subject_token),
        Option(EVENTS, "what our names in NATS begin with; installations may share servers", "NAME"),
    ] = "apigw"
    events_replicas: Annotated[
        int | None,
        Field(ge=1, le=5),
        Option(EVENTS, "copies that NATS keeps", "N", shown="one per server, away or not, at most 3"),
    ] = None
    events_max_bytes: Annotated[
        int | None,
        Field(ge=1 << 16),
        BeforeValidator(values.size_or_none),
        Option(
            EVENTS,
            "most that waits in NATS; what is more stays in the journals",
            "SIZE",
            shown="none",
        ),
    ] = None
    events_lease: Annotated[
        float,
        Field(ge=1, allow_inf_nan=False),
        Option(EVENTS, "how long a node may be silent before its deliveries go to others", "SECONDS"),
    ] = 30.0
    deliver: Annotated[
        Literal["here", "workers"],
        Option(EVENTS, "who runs the handlers: this process too, or workers only", "here|workers"),
    ] = "here"
    relayed_retention: Annotated[
        _Seconds,
        Option(EVENTS, "how long what NATS took stays in the journal, to be replayed", "SECONDS"),
    ] = 86400.0
    retention: Annotated[
        _Seconds, Option(EVENTS, "how long finished deliveries stay listed", "SECONDS")
    ] = 604800.0
