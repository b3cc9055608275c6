"""LXC's own tests (Debian's package lxc-tests), as installed, against real LXC and against lxcpy."""
