"""Floor 1: the key table, the text of a config file, its model and its checks."""
