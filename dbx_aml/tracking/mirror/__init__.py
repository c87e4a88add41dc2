"""Step 2, track in both: runs of one MLflow server brought up to date in another server.

The source run is the truth, and its tag `dbx_aml.mirror` is the queue: the request that creates
the run sets the tag to "pending", so a run cannot be lost between the two. Mirroring reads the
source run, writes what the destination lacks, compares both, and sets the tag to "done" last. A
process that is killed in between leaves a pending run, and a second try changes nothing.

    tags             tags of source run and mirrored run, digest of a run
    server           an MLflow server, the two servers of a link
    lease            lock on a source run, kept in a tag
    mirrored_runs    mirrored run of a source run: found, or created once
    metric_points    set of the points of a metric
    metrics          metrics: read in pages, written in batches
    run_data         params, tags, datasets
    artifacts        files of an artifact repository
    logged_models    logged models
    mirror_run       one run: read, find or create, compare, write, verify, record
    pending_runs     searches for runs to mirror
    mirror_runs      many runs at once
    compare          every difference between two runs
    status           counts by experiment
    live_mirror      thread that mirrors the runs of its process
    active_run       one run that the thread follows

The caller decides which server is the source; no module of this folder assumes it.
"""
