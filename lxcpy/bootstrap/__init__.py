"""Floor 2: fills a root filesystem from a verified mirror or from files at hand."""
