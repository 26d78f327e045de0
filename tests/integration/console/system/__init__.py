"""The page `system` of the console."""
