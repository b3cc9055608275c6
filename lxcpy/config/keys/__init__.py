"""The rows of the key table, one module a family of keys."""
