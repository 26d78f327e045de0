"""Small whole requests of plain routes, on callbacks: without a task, a step or a future."""
