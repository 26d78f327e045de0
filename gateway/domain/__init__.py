"""The nouns and their rules: model, paths, metadata, schedules, event bodies. No network, no loop.

`sqlite_writer` is the thread that the journal and the records share.
"""
