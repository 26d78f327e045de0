"""The page `activity` of the console."""
