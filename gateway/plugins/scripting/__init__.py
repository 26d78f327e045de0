"""What a script of a plugin can see, and the executors it runs in, never on the server's loop."""
