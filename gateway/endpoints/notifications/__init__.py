"""Notifications of object stores: `POST /-/notifications` and the reconciliation of presigned uploads.

handler            the endpoint, and who may send notifications
parser             formats of senders         sns, certificates   signatures of Amazon SNS
processor          a notification becomes an event (object_events), or its object is removed
presigned_uploads  URLs that were given out   reconcile        objects without a notification
"""
