"""The bench: how fast the gateway is, each figure beside a peer in the same run.

Its one rule: build against the command line of every contestant, ours too, and look at the bytes
that landed before a figure counts. Only what measures a room without a server (`events`, `floor`)
imports `gateway`. From the bottom: `samples` (what a turn gives), `processes` (a server and what it
uses), `contestants` (how each is started), `load` (what drives them), `probes` (the disk without
HTTP), `cases` (who meets whom over what), `targets` and `report` (what the figures mean),
`__main__` (the command).
"""
