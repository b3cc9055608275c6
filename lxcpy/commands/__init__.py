"""Floor 5: one module a command: its options and its run."""
