"""Prepare a Databricks cluster for the link, and undo it.

An attach is a pipeline. Each stage takes the dataclass of the stage before:

    clusters.find_cluster    name or id              -> Cluster
    files.collect_files      config.json, wheelhouse -> ClusterFiles -> FolderFiles
    plan.plan_attach         Cluster, FolderFiles    -> AttachPlan, which the command shows
    attach.attach_cluster    AttachPlan              -> AttachResult

`attach_cluster` uploads the files, writes the record, changes the settings, waits for the cluster
and reads the driver's marker. `detach` undoes the change by means of the record. Job clusters and
serverless compute have no cluster to attach: `snippets` prints text for the job's definition.
"""
