"""What the keys of an installation sign: internal credentials, URLs, marks of objects. Pure.

Each purpose has a derived key of its own, so that no signature is valid for another purpose. Texts are
compared in constant time.
"""
