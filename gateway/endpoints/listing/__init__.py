"""Lists of folders, as JSON for programs and as a page for people."""
