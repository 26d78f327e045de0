"""Where the bytes of files are: a local directory, or a bucket of an object store.

A request stays below the configured directory or prefix, whatever its path says and links lead to.
"""
