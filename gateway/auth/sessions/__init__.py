"""Sessions of people who have signed in: a browser carries a cookie instead of a token.

cookie    which cookie is ours; it is taken from a request as soon as its head has arrived
session   what is kept of a session
store     the file of the sessions, `sessions.db`
sessions  the sessions as a process knows them
access    from a request to its session and its caller
"""
