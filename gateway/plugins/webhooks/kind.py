"""The kind of plugin that is a webhook: a handler for each of its events, which sends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from yarl import URL

from gateway.domain.model import DELETED, OBJECT_CREATED, RECEIVED, UPLOADED, RetryPolicy
from gateway.errors import ConfigError
from gateway.plugins.handler import Handler
from gateway.plugins.kinds import Kind, ParsedPlugin, as_tuple, validate
from gateway.plugins.models import ADMITTING, DECIDING, DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.namespace import PluginContext
from gateway.plugins.scripting.values import Event
from gateway.plugins.webhooks.answers import take_decision
from gateway.plugins.webhooks.models import WebhookModel
from gateway.plugins.webhooks.sending import Post, WebhookSender, WebhookTarget, failure_of, send
from gateway.plugins.yaml_documents import Document, PluginErrors, SecretToken
from gateway.signing.webhooks import read_secret

WEBHOOK: Final = "webhook"

TIMEOUT: Final = 30.0
"""Default time-out of a request whose answer decides nothing, in seconds."""

_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
_OWN_HEADERS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"}
)


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """Sends an event of one name: the function of a handler."""

    post: Post
    target: WebhookTarget
    event_name: str
    decides: bool

    async def __call__(self, event: Event, handle: Handle) -> None:
        """Send `event`. Raises `WebhookFailed`, and `InvalidResult` for a decision that is none."""
        answer = await send(self.post, self.target, self.event_name, event, handle.created)
        if self.decides:
            take_decision(self.event_name, answer, event, handle)
        elif not 200 <= answer.status < 300:
            raise failure_of(answer)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook: its handlers, one for each event, and where they send it."""

    name: str
    target: WebhookTarget
    handlers: tuple[Handler, ...]

    def describe(self) -> str:
        """Return the line that is printed at start."""
        events = ", ".join(handler.event for handler in self.handlers)
        signed = "" if self.target.secrets else ", not signed: it has no secret"
        return f"webhook {self.name} -> {self.target.shown}: {events}{signed}"


def _parse(document: Document) -> ParsedPlugin:
    model = validate(document, WebhookModel)
    _check_events(document, model)
    for index, test in enumerate(model.tests):
        if test.type is None and len(model.webhook.events) > 1:
            raise document.error("the webhook has several events: say which with `type`", "tests", index)
        if test.type is not None and test.type not in model.webhook.events:
            raise document.error("the webhook does not have this event", "tests", index, "type")
    return ParsedPlugin(WEBHOOK, model.name, document, model)


def _check_events(document: Document, model: WebhookModel) -> None:
    """Check which keys have a meaning for the events. Raises `ConfigError`."""
    events = set(model.webhook.events)
    deciding = sorted(events & set(DECIDING))
    if deciding and not model.webhook.decide:
        message = f"{deciding[0]} waits for a decision: add `decide: true`, or remove the event"
        raise document.error(message, "webhook", "events")
    if model.webhook.decide and not deciding:
        message = f"`decide` applies to {', '.join(DECIDING)} only: remove it"
        raise document.error(message, "webhook", "decide")
    if model.shadow and (others := sorted(events - set(DECIDING))):
        message = f"`shadow` applies to events that decide, not to {others[0]}: remove it"
        raise document.error(message, "shadow")
    journalled = sorted(events & {UPLOADED, DELETED, OBJECT_CREATED})
    if journalled and RECEIVED in events and (model.hold or model.on_error == "hold"):
        message = f"a webhook that holds files has no other events of the journal: move {journalled[0]}"
        raise document.error(f"{message} to a webhook of its own", "webhook", "events")
    if model.on_error == "hold" and set(deciding) != {RECEIVED}:
        message = f"`on_error: hold` applies to {RECEIVED} only: use deny or allow"
        raise document.error(message, "on_error")
    holding = {RECEIVED} if model.hold or model.on_error == "hold" else set()
    homes = {
        "hold": {RECEIVED},
        "on_error": set(DECIDING) - ({RECEIVED} if model.hold else set()),
        "authorization": set(ADMITTING),
        "retry": {UPLOADED, DELETED, OBJECT_CREATED} | holding,
        "concurrency": {UPLOADED, DELETED, OBJECT_CREATED} | holding,
    }
    for key, needed in homes.items():
        if key in document.data and not events & needed:
            held = ", or `hold: true`" if RECEIVED in events and not holding else ""
            message = f"`{key}` applies to {', '.join(sorted(needed))}{held} only: remove it"
            raise document.error(message, key)


def _make(parsed: ParsedPlugin, context: PluginContext) -> Webhook:
    """Resolve the references of a webhook and make its handlers. Raises `ConfigError`."""
    document, model = parsed.document, parsed.model_as(WebhookModel)
    target = _target(document, model, context)
    post = WebhookSender(context.services.sessions)
    handlers = tuple(_handler(document, model, target, event, post) for event in model.webhook.events)
    return Webhook(model.name, target, handlers)


def _handler(
    document: Document, model: WebhookModel, target: WebhookTarget, event: str, post: Post
) -> Handler:
    decides = event in DECIDING
    prefix = tuple(text.removeprefix("/") for text in as_tuple(model.webhook.prefix))
    suffix = as_tuple(model.webhook.suffix)
    return Handler(
        name=model.name,
        event=event,
        timeout=model.timeout or (DEFAULT_TIMEOUT[event] if decides else TIMEOUT),
        on_error=model.on_error if decides else "deny",
        # Else files beside its prefix would be open to everybody.
        keeps_authorization=model.authorization == "keep" or bool(prefix or suffix),
        hold=model.hold and event == RECEIVED,
        shadow=model.shadow,
        retry=RetryPolicy(model.retry.attempts, model.retry.backoff, model.retry.max_backoff),
        concurrency=model.concurrency or DEFAULT_CONCURRENCY[UPLOADED],
        prefix=prefix,
        suffix=suffix,
        schedule=None,
        tests=tuple(test for test in model.tests if test.type in (None, event)),
        file=str(document.file),
        line=document.line(),
        suspends=True,
        function=WebhookCall(post, target, event, decides),
        code=None,
        document=document,
        url=target.shown,
    )


def _target(document: Document, model: WebhookModel, context: PluginContext) -> WebhookTarget:
    """Return where the webhook sends. What only a deployment has may be missing in `gateway check`."""
    keys = model.webhook
    errors: list[ConfigError] = []
    url, url_is_whole = context.secrets.resolve(document, keys.url, "webhook", "url")
    headers = {
        name: context.secrets.resolve(document, value, "webhook", "headers", name)[0]
        for name, value in keys.headers.items()
    }
    checked = URL("http://gateway.invalid/")
    if url_is_whole:
        try:
            checked = _url(url)
        except ValueError as error:
            errors.append(document.error(f"`webhook.url` {error}", "webhook", "url"))
    errors += _header_errors(document, headers)
    secrets = list(_secrets(document, model, context, errors))
    if errors:
        raise PluginErrors(errors)
    return WebhookTarget(checked, _shown(keys.url), tuple(secrets), headers)


def _shown(url: str | SecretToken) -> str:
    """Return a URL as the plugin has it, its references not resolved, without query and fragment."""
    if isinstance(url, SecretToken):
        return "a URL that is a !secret"
    return url.partition("?")[0].partition("#")[0]


def _url(text: str) -> URL:
    """Return a URL that can be posted to. Raises `ValueError`, whose text quotes nothing."""
    try:
        url = URL(text)
    except ValueError:
        raise ValueError("is no URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("begins with http:// or https:// and has a host")
    if url.user is not None or url.password is not None:
        raise ValueError("has a user or a password: put `Authorization` into `headers`")
    return url.with_fragment(None)


def _header_errors(document: Document, headers: dict[str, Any]) -> Iterator[ConfigError]:
    for name, value in headers.items():
        where = ("webhook", "headers", name)
        if not _FIELD_NAME.fullmatch(name):
            yield document.error("the name of a header has a character that is not allowed", *where)
        elif name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
            yield document.error(f"the gateway writes the header {name} itself: remove it", *where)
        elif not _FIELD_VALUE.fullmatch(value):
            yield document.error(f"the value of {name} must be one line of ASCII", *where)


def _secrets(
    document: Document, model: WebhookModel, context: PluginContext, errors: list[ConfigError]
) -> Iterator[bytes]:
    given = model.webhook.secret
    listed = given if isinstance(given, list) else [] if given is None else [given]
    for index, text in enumerate(listed):
        where = ("webhook", "secret", index) if isinstance(given, list) else ("webhook", "secret")
        secret, is_whole = context.secrets.resolve(document, text, *where)
        context.secrets.hide([secret])
        try:
            yield read_secret(secret) if is_whole else bytes(32)
        except ValueError as error:
            message = f"`webhook.secret` must be a text that {error}"
            errors.append(document.error(f"{message}: `openssl rand -base64 32` makes one", *where))


WEBHOOK_KIND: Final = Kind(WEBHOOK, frozenset({"webhook"}), _parse, _make)
