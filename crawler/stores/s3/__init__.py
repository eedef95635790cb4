"""S3: objects read through obstore, everything else through s3fs."""
