"""Events and their deliveries, durable until every handler has run.

The journal keeps them in SQLite; with NATS the relay moves them to JetStream. The runner claims
deliveries from either and runs the handlers.
"""
