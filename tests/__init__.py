"""Tests: `unit` starts no server, `contract` runs one suite over several engines, `integration`
runs real servers."""
