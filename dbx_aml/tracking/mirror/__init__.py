"""Step 2, track in both: runs of one service brought up to date in the other, one way.

The source is the truth and its tag `dbx_aml.mirror` is the queue: it is set in the very request
that creates a run, so nothing can be lost between the two. To mirror a run is to read the source,
write what the destination lacks, compare both, and only then to say "done" in that tag; whoever is
killed in between leaves a run that is still pending, and doing it again changes nothing.

    tag          the tags of both sides, and what of a run they vouch for
    side         one of the two services
    problem      which errors pass, which stay, which stop everything
    lease        one writer for a run at a time, as far as tags can say so
    target       the run that mirrors a run: found, or made once
    point        metrics: read in pages, written in batches, compared as sets
    field        params and tags
    file         artifacts, from server to server by way of one file on disk
    model        logged models and datasets
    copy         one run, whole
    queue        which runs are pending
    reconcile    many runs at once
    compare      every difference between two runs
    live         the thread that mirrors a process's own runs while it runs

Which side is source and which destination is said by whoever calls: nothing here knows it.
"""
