"""Tests of resumable uploads that start no server."""
