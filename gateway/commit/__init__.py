"""The commit room keeps the promise: a 2xx means whole, durable, and its handlers will run.

`committer` takes waiting uploads in batches through one thread, `publish` gives a body its final
name, `recover` settles at start what a crash left, `reserve` keeps the disk from filling, `files`
finds the very file that was committed. Every door that stores uses this room.
"""
