"""Floor 2: control groups of both versions behind one interface."""
