"""Links over HTTP: made and revoked by operators, opened and used by those who get them."""
