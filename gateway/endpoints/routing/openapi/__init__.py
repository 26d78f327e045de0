"""The OpenAPI document of what is served: routes of plugins, uploads and the gateway's own API.

It is generated from the loaded routes, so it is never out of date. Each caller gets the operations that
it may call. Source: OpenAPI specification 3.1.

    audience             what a caller may call, as far as its credentials tell
    document             the document of these operations
    operations           the operations of routes, with `parameters`, `responses`
    files                the operations on uploads and stored files
    endpoint_operations  the gateway's own endpoints
    components           what operations share, with `shared_schemas` of routes
    handler              serves the document
"""
