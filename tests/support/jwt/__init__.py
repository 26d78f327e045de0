"""JSON Web Tokens: whom they are believed to speak for."""
