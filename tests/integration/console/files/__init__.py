"""The page of files in a real browser."""
