"""Links: credentials that one person gives to another, to upload into a folder or to read one."""
