"""Where the bytes of files are: a local directory, or a bucket of an object store.

A request reads and writes only below the configured directory or prefix, whatever its path says and
whatever links lie in the directory.
"""
