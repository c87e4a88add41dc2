"""The command dbx-aml: one file a subcommand."""
