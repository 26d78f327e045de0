"""Sends stored files: whole, in ranges, or many as one zip archive.

A response has one version of a file, for a client that may have it, as an attachment that a browser
saves and never runs.
"""
