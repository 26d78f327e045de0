"""Where bytes lie, on a local disk or in an object store.

One rule: nothing outside the configured root is ever read, made or changed on behalf of a client,
whatever the path says and whatever stands in the tree. Blocking calls only: callers bring their own
threads.
"""
