"""The page `timeline` of the console."""
