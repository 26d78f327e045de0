"""Small JSON items that scripts keep, found by key or by an indexed field.

When `put` returns, the item is on stable storage. Every store answers a query with the same rows in the
same order.
"""
