"""`ask`: run `gateway events ...`; `check_text`: run `gateway check`."""

from tests.support.cli import ask, check_text

__all__ = ["ask", "check_text"]
