"""Floor 0: system calls as typed functions over ctypes; no policy."""
