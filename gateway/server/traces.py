"""Opens what sends the spans of a process to a collector (`--otlp`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from gateway import __version__
from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.telemetry import tracing


def open_traces(
    settings: Settings, node: str, slot: int, mask: Callable[[str], str], stack: ExitStack
) -> None:
    """Begin to record spans until `stack` is closed, if `--otlp` is set.

    `node` names this process, `mask` hides secrets. Call it in the process itself: it starts a thread.
    Raises `ConfigError` where OpenTelemetry is not installed.
    """
    if settings.otlp is None:
        return
    try:
        from gateway.telemetry.otlp import OtlpTracer  # an extra
    except ImportError as error:
        raise ConfigError(
            f"--otlp {settings.otlp} needs OpenTelemetry ({error.name}):"
            " run pip install '.[otel]' in the checkout"
        ) from None
    resource: tracing.Attributes = {
        "service.name": "upload-gateway",
        "service.version": __version__,
        "service.instance.id": node,
        "process.pid": os.getpid(),
        "gateway.slot": slot,
    }
    tracer = OtlpTracer(settings.otlp, resource, mask)
    tracing.install(tracer)
    stack.callback(tracer.close)
    stack.callback(tracing.install, None)
