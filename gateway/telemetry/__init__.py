"""Telemetry: logs, metrics, redaction."""
