"""Step 2, track: MLflow's calls of this process go to Databricks, to Azure ML, or to both.

connect        sets MLflow's tracking and registry URI as a link says
connection     what `connect` returns: facts for people, and the way back
active_uris    MLflow's two URIs in this process, each with its origin
servers        the host that MLflow calls, and a check that it answers
runs           runs and their metrics as plain data
run_context    marks each run that is created in mode "dual"
azureml/       MLflow's stores for Azure ML
mirror/        brings a run in the other service up to date
"""
