"""The door for uploads: admit -> receive -> commit -> answer.

`admission` decides before a byte of body, `preconditions` reads what headers demand, `body`
receives, `fastpath` does so for large bodies past the loop (`takeover` takes their connection,
`roadcheck` tries whether it can), `put` is the road from one to the next.
"""
