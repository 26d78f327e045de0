"""Endpoints for operators: health, metrics, the state of uploads, events."""
