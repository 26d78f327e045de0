"""Which keys of a handler go together: with its event, with each other."""

from __future__ import annotations

from gateway.domain.model import RECEIVED, SCHEDULE
from gateway.plugins.models import APPLIES, WITH_FILE, WITH_HOLD, WITHOUT_HOLD, HandlerModel
from gateway.plugins.testing_models import HandlerTestModel
from gateway.plugins.yaml_documents import Document


def check_keys(document: Document, model: HandlerModel) -> None:
    """Raise `ConfigError` for a key that has no meaning beside the others."""
    for key, events in APPLIES.items():
        if key in document.data and model.event not in events:
            *rest, last = events
            where = f"{', '.join(rest)} and {last}" if rest else last
            raise document.error(f"`{key}` applies to {where} only: remove it", key)
    if model.event == SCHEDULE:
        _check_schedule(document, model)
    if model.event == RECEIVED:
        _check_hold(document, model)
    elif model.on_error == "hold":
        raise document.error(
            f"`on_error: hold` applies to {RECEIVED} only: use deny or allow", "on_error"
        )
    if model.event not in WITH_FILE:
        for index, test in enumerate(model.tests):
            _refuse_body(document, index, test)


def _refuse_body(document: Document, index: int, test: HandlerTestModel) -> None:
    if test.has_body:
        key = "body" if test.body_file is None else "body_file"
        *names, last = WITH_FILE
        message = f"`{key}`: this event has no file; {', '.join(names)} and {last} have one: remove it"
        raise document.error(message, "tests", index, key)


def _check_schedule(document: Document, model: HandlerModel) -> None:
    if model.cron is None and model.every is None:
        raise document.error('a Schedule needs `cron: "5 3 * * *"` or `every: 15m`: add one', "event")
    if model.cron is not None and model.every is not None:
        raise document.error("`cron` and `every` exclude each other: remove one", "every")
    if model.every is not None and "timezone" in document.data:
        raise document.error("`timezone` belongs to `cron`, not to `every`: remove it", "timezone")


def _check_hold(document: Document, model: HandlerModel) -> None:
    keys: tuple[str, ...]
    if model.hold:
        keys, state = WITHOUT_HOLD, "does not apply with `hold: true`"
    elif model.on_error == "hold":
        return
    else:
        keys, state = WITH_HOLD, "applies with `hold: true` or `on_error: hold` only"
    for key in keys:
        if key in document.data:
            raise document.error(f"`{key}` {state}: remove it", key)
