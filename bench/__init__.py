"""The bench: measures the gateway, each figure beside a peer in the same run.

Contestants are started by their command lines, the gateway too, and stored bytes are compared before a
figure counts. Only benches of one part without a server (`events`, `floor`) import `gateway`.

    samples      the result of a turn          contestants   set-up and start of each server
    processes    a server as a process         load, probes  what drives them; the disk without HTTP
    cases        who is compared over what     targets, report   goals and output
"""
