"""The bench: measures the gateway, each figure beside a peer in the same run.

Contestants are started by their command lines, the gateway too, and stored bytes are compared before a
figure counts. Only benches of one part without a server (`events`, `in_process`) import `gateway`.

    samples      the result of a turn          contestants, peers, nginx   how servers are started
    processes    a server as a process         load, sources   what is sent, and checked
    probes       the disk without HTTP         targets, report   goals and output
    cases        who is compared over what     entrants   who takes turns, and how
    scheduling   the processors for the bench
    layers       where the microseconds of a small request go: in_process, meter; under load: threads
"""
