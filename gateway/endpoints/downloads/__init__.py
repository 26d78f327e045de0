"""Hands stored files out again, whole, in part, or many as one archive.

One rule: what is sent is one version of a file, to somebody who may have it, as something to be saved
and never to be run by a browser.

    ranges      which parts are asked for        conditions  is the client's copy still good
    asked       all of that for one request      door        the decision
    answer      the file as an answer
    sending     bytes from the disk to a socket  archive     many files as one zip
"""
