"""The command line's commands, one file per group. Nothing heavy is imported before a command runs."""
