"""Commits uploads: a 2xx means the file is whole, on stable storage, and its handlers will run.

`writer` is the protocol of both storages, `local_writer` and `object_backend` implement it. `committer`
commits local files in batches through one thread, `object_commit` objects one by one; `recover` settles
at start what a crash left.
"""
