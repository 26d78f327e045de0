"""The page at `/`: files and folders, sent until they are stored, and what becomes of them."""
