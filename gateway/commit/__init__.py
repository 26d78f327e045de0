"""Commits uploads: a 2xx means the file is whole, on stable storage, and its handlers will run.

`local_writer` and `objects` implement the protocol in `writer`. `committer` commits local files in
batches through one thread, `objects.committer` objects one by one; `recover` settles what a crash left.
"""
