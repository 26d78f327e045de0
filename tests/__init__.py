"""The tests of the gateway; `conftest` has the fixtures, `harness` what they are made of."""
