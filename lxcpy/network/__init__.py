"""Floor 2: a container's links, and the bridge they hang on."""
