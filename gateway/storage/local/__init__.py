"""A local directory as a storage, and the state folder `DIRECTORY/.gateway`."""
