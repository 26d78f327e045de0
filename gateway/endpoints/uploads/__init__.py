"""Uploads: admit, receive, commit, respond.

`handler` goes through these steps, `admission` decides from the headers, `body` and `socket_receiver`
receive, `outcomes` records how an upload ended.
"""
