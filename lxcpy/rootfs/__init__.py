"""Floor 2: what is mounted where inside a container: a pure plan and the loop that applies it."""
