"""Uploads: admit, receive, commit, respond.

`handler` goes through these steps, `admission` decides from the headers, `body` receives.
"""
