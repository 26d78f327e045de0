"""Real S3 servers and what is tested against them."""
