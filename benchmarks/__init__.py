"""One script a figure, each side by side in one process run with what a user would run instead."""
