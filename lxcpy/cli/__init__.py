"""Floor 5: dispatch, options, tables and errors of the commands."""
