"""The door for notifications of object stores, and what looks after objects put past the gateway.

`notices` reads what stores send, `senders` knows who may send it, `sns` the signatures of Amazon's
notification service; `door` answers `POST /-/notifications`; `arrivals` turns an object that has
come into an event, `reconcile` looks for those whose notification was lost.
"""
