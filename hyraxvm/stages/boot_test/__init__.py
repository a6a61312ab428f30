"""Stage `boot_test`: a shipped file, booted and exercised."""
