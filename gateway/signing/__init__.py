"""What the keys of an installation prove: credentials, signed URLs, marks.

The rule: pure. No socket, no loop, no file: a key goes in, a text comes out, and a text is checked
in constant time. Each purpose has a key of its own, so that nothing made for one is ever good for
another.
"""

from gateway.signing.credential import CREDENTIAL_SKEW, CREDENTIAL_TTL, CredentialSigner
from gateway.signing.keys import MIN_KEY_BYTES
from gateway.signing.marks import ObjectMarker
from gateway.signing.request import reject_mismatch, reject_unenforceable
from gateway.signing.targets import carries_signature
from gateway.signing.urls import UrlSigner

__all__ = [
    "CREDENTIAL_SKEW",
    "CREDENTIAL_TTL",
    "MIN_KEY_BYTES",
    "CredentialSigner",
    "ObjectMarker",
    "UrlSigner",
    "carries_signature",
    "reject_mismatch",
    "reject_unenforceable",
]
