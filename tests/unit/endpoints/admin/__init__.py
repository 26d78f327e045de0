"""Pages about uploads, made of a real journal."""
