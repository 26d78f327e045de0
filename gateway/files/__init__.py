"""`files` in scripts: what is stored, by event and by path, in this gateway or in a peer."""
