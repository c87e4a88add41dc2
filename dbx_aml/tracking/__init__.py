"""Step 2, track: where MLflow's calls go."""
