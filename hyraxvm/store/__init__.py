"""S3-compatible stores: objects, uploads that resume, the shared stage cache."""
