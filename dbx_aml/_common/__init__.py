"""Helpers that know neither MLflow nor Spark nor Azure: every other folder may import them."""
