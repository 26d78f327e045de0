"""Signing in with OpenID Connect: the authorization code flow with PKCE (S256), state and nonce.

pending   a sign-in that has begun, which the browser brings back
provider  the issuer: where people sign in, what a code stands for
person    the principal of somebody whom the issuer has signed in
flow      begins and ends a sign-in
"""
