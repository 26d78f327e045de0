"""Resumable uploads: three protocols on one machinery.

`draft`, `tus` and `ranged` translate requests into operations and results into responses;
`service` performs the operations.
"""
