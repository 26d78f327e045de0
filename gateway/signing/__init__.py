"""What the keys of an installation prove: credentials, signed URLs, marks.

The rule: pure. No socket, no loop, no file: a key goes in, a text comes out, and a text is checked
in constant time. Each purpose has a key of its own, so that nothing made for one is ever good for
another.
"""

from gateway.signing.credential import LIFETIME_SECONDS, SKEW_SECONDS, CredentialSigner
from gateway.signing.keys import SHORTEST_KEY
from gateway.signing.marks import ObjectMarker
from gateway.signing.request import check_request, check_terms
from gateway.signing.targets import carries_signature
from gateway.signing.urls import UrlSigner

__all__ = [
    "LIFETIME_SECONDS",
    "SHORTEST_KEY",
    "SKEW_SECONDS",
    "CredentialSigner",
    "ObjectMarker",
    "UrlSigner",
    "carries_signature",
    "check_request",
    "check_terms",
]
