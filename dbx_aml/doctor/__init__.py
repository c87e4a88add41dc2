"""Checks of a machine, a cluster and both services, each with its fix."""
