"""Floor 2: capabilities, system call filters, security labels."""
