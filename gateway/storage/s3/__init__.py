"""S3 room: the storage that is a bucket, reached over the network.

One rule: no S3 library is imported, and no network touched, before somebody asks for a client, so
that a gateway which keeps its files on a disk starts as quickly as ever. Nothing here blocks the
loop.

    keys     paths and keys, and where in which bucket they lie
    client   one client an event loop
    faults   what S3 says is wrong, in our own words
"""
