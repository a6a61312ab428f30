"""What people and CI use beside the stages: reports, trials, benchmarks, housekeeping."""
