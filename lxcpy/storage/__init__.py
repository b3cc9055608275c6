"""Floor 2: where a root filesystem is kept: one backend a module."""
