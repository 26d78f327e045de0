"""The commit into a bucket: bodies, partial uploads and held uploads as objects.

`backend` puts all of it together for one process.
"""
