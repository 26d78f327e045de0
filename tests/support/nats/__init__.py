"""The distributed engine, against real nats-servers."""
