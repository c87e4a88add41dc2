"""Step 1, link: which Azure ML workspace, who tracks, who registers."""
