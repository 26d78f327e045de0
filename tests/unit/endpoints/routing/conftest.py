"""`check_text`: run `gateway check`."""

from tests.support.cli import check_text

__all__ = ["check_text"]
