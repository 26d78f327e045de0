"""JSON Web Tokens: the principal of a token of the configured issuer, or why it is rejected.

Keys, algorithms and addresses come from the settings and the issuer alone, never from the token (RFC
8725). A token is never stored, logged or quoted.

    keys      parses a JWKS document into keys, each bound to its algorithms
    claims    checks the claims and makes the principal
    issuer    fetches and caches the keys
    verifier  token -> principal
"""
