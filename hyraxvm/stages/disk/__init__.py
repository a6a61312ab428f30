"""Stage `disk`: a partitioned disk that is not provisioned yet."""
