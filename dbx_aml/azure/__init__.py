"""Azure: credentials that never ask a person, and the REST calls to Azure ML."""
