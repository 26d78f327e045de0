"""Tests of `gateway.signing`."""
