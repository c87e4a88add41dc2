"""Step 5, serve: a model behind a scoring server, here and in Azure ML."""
