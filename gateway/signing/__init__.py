"""What the keys of an installation sign: internal credentials, URLs, marks of objects. Pure.

Each purpose has a derived key of its own, so that no signature is valid for another purpose. Texts are
compared in constant time.
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
