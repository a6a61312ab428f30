"""Stage `guest`: the guest's files that only land, put into the provisioned disk."""
