"""Benchmarks: each script measures this project and the usual alternative in the same run."""
