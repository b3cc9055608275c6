"""Floor 3: the supervisor, the launcher, the container's first process, and the verbs that join floor 2."""
