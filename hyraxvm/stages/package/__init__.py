"""Stage `package`: the files that users download."""
