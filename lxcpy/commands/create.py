"""Create a container from a template."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option

BACKENDS = ("dir", "none", "overlay", "overlayfs", "btrfs", "zfs", "lvm", "loop", "rbd", "nbd", "best")
UNITS = "bkmgt"


class Args(CommonArgs):
    bdev: str | None
    config: str | None
    template: str | None
    lvname: str | None
    vgname: str | None
    thinpool: str | None
    fstype: str | None
    fssize: int | None
    zfsroot: str | None
    dir: str | None
    rbdname: str | None
    rbdpool: str | None
    rbduser: str | None
    json: bool


def size(text: str) -> int:
    """Bytes from `N[bkmgt]`; a bare number is MiB. Raises ValueError."""
    digits = text.rstrip(UNITS + UNITS.upper())
    unit = text[len(digits) :].lower() or "m"
    if not digits.isdigit() or len(unit) > 1:
        raise ValueError(f'"{text}" is not a size: write a number and one of {" ".join(UNITS)}')
    return int(digits) << 10 * UNITS.index(unit)


COMMAND = Command(
    "create",
    "Create a container from a template.",
    "--name=NAME --template=TEMPLATE [OPTION...] [-- TEMPLATE-OPTION...]",
    (
        Option("B", "bdev", "TYPE", "Backing store of the root filesystem (default dir).", choices=BACKENDS),
        Option("f", "config", "FILE", "Configuration to begin with (default: the system key lxc.default_config)."),
        Option("t", "template", "TEMPLATE", 'Name of a template, path of a template script, or "none".'),
        Option("0", "lvname", "NAME", "Logical volume (default: the container's name).", section="With -B lvm"),
        Option("1", "vgname", "VG", "Volume group (default lxc).", section="With -B lvm"),
        Option("2", "thinpool", "POOL", "Thin pool (default lxc).", section="With -B lvm"),
        Option("3", "fstype", "TYPE", "Filesystem (default ext4).", section="With -B lvm, loop or rbd"),
        Option(
            "4", "fssize", "SIZE", f"Size with a unit of {' '.join(UNITS)} (default 1G; a bare number is MiB).",
            convert=size, section="With -B lvm, loop or rbd",
        ),
        Option("5", "zfsroot", "DATASET", "Parent dataset (default lxc).", section="With -B zfs"),
        Option("6", "dir", "DIR", "Absolute path for the root filesystem.", section="With -B dir"),
        Option("7", "rbdname", "NAME", "Block device (default: the container's name).", section="With -B rbd"),
        Option("8", "rbdpool", "POOL", "Ceph pool (default lxc).", section="With -B rbd"),
        Option("9", "rbduser", "USER", "Ceph user (default admin).", section="With -B rbd"),
        Option("", "json", None, "Report the progress as one JSON object a line.", section="Output", ours=True),
    ),
    {0: "the container exists", 1: "it could not be made; nothing of it is left"},
    words="What follows -- goes to the template; lxcpy-create -t TEMPLATE -h explains its options.",
    args=Args,
)  # fmt: skip


def run(args: Args) -> int:
    import os
    import sys

    from lxcpy.bootstrap import progress
    from lxcpy.bootstrap import template as templates
    from lxcpy.container import Container
    from lxcpy.errors import StorageError, UsageError
    from lxcpy.runtime.create import Request, create, find_template

    if not args.template:
        raise UsageError("A template must be specified.", hint='-t NAME; "none" for a container without a rootfs')
    if args.dir and not os.path.isabs(args.dir):
        raise UsageError("--dir should use absolute path")
    if args.bdev not in (None, "dir", "none", "best"):
        raise StorageError(f'lxcpy-create makes storage of type dir so far, not "{args.bdev}"', hint="leave -B out")
    if args.fstype or args.fssize:
        raise UsageError("Filesystem type and size are only valid with block devices")
    if args.rest and args.rest[0] in ("-h", "--help"):
        found = find_template(args.template)
        if isinstance(found, templates.Template):
            sys.stdout.write(templates.help_text(found))
            return 0
    container = Container(args.name, args.lxcpath)
    shown: progress.Progress = progress.Silent() if args.quiet else progress.default()
    if args.json:
        shown = progress.Json()
    try:
        create(
            Request(
                name=container.name, lxcpath=container.lxcpath, template=args.template, words=args.rest,
                config=args.config, directory=args.dir, progress=shown, quiet=args.quiet,
            )
        )
    finally:
        shown.close()
    return 0
