"""Spark, Databricks notebooks and the demo on a laptop."""
