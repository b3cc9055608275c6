"""The session's name and directories, made once, whoever asks first: conftest.py is no module to import them from."""

from __future__ import annotations

import os
import secrets
import tempfile

TOKEN = f"t{secrets.token_hex(3)}"  # part of every container's name, so that a leak can be told from others' work
BASE = tempfile.mkdtemp(prefix=f"lxcpy-{TOKEN}-", dir="/tmp")  # short: a Unix socket's path has 107 characters
os.chmod(BASE, 0o711)  # the mapped root of a container with lxc.idmap has to get through
RUN_DIR, CACHE_DIR = f"{BASE}/run", os.environ.get("LXCPY_TEST_CACHE") or f"{BASE}/cache"
# In-process tests and every command see the same; set before any test module is imported.
os.environ.update(LXCPY_RUN_DIR=RUN_DIR, LXCPY_CACHE_DIR=CACHE_DIR)
