"""OpenAPI documents (3.0 and 3.1) as the source of routes.

Source: OpenAPI specification 3.0.4 and 3.1.1. Local references alone are followed.
"""
