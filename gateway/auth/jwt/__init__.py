"""JSON Web Tokens: who a token of the configured issuer speaks for, or why it is not believed.

The rule of the room: nothing that a token says decides how it is judged: keys, algorithms and
addresses come from the settings and the issuer alone (RFC 8725). A token is never kept, logged or
quoted.

    keys      a JWKS document -> keys, each bound to its algorithms (pure)
    claims    what a token must say, and the principal it makes (pure)
    issuer    fetches the keys, remembers them, asks again where that may help
    verifier  token -> principal
"""
