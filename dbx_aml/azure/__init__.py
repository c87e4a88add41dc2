"""Azure: credentials without interactive sign-in, and the REST calls to Azure ML."""
