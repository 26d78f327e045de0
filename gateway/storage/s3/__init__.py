"""A bucket of an object store (Amazon S3 and stores that speak its API) as a storage."""
