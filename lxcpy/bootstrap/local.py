"""A system out of files at hand: the tarball of a root filesystem, and perhaps LXC's metadata of an image."""

from __future__ import annotations

import os
from contextlib import ExitStack

from lxcpy.bootstrap import image
from lxcpy.bootstrap.job import Job
from lxcpy.errors import UsageError

_COMPAT = 5  # the version of the metadata's format that LXC's own template asks for


def fill(job: Job) -> str:
    """Make the system and sort the config. Raises BootstrapError, UsageError."""
    path = job.options.get("fstree")
    if not path:
        raise UsageError("template local: which root filesystem?", hint="--fstree=FILE names its tar archive")
    with ExitStack() as stack:
        meta = None
        if "metadata" in job.options:
            meta_path = job.options["metadata"]
            file = image.open_file(meta_path, "the metadata")
            stack.callback(os.close, file)
            meta = image.metadata(job, file, meta_path, compat=_COMPAT)
        tree = image.open_file(path, "the root filesystem")
        stack.callback(os.close, tree)
        excludes = meta.lines("excludes") if meta else []
        if "no-dev" in job.options:
            excludes.append("dev/*")
        image.unpack(job, tree, job.tree, name=path, excludes=excludes)
    image.finish(job, meta)
    return ""
