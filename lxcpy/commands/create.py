"""Create a container from a template."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


def template_help(values: dict[str, Any]) -> str:
    """What `-t TEMPLATE -h` shows below the command's own help: the template's options. Raises UsageError."""
    name = values["template"]
    if not name or name == "none":
        return ""
    from lxcpy.bootstrap import template as templates
    from lxcpy.runtime.create import find_template

    found = find_template(name)
    if isinstance(found, templates.Template):
        return templates.help_text(found)
    import subprocess

    shown = subprocess.run([found.path, "-h"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return shown.stdout + shown.stderr


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
    more_help=template_help,
)  # fmt: skip


def run(args: Args) -> int:
    import os
    import sys

    from lxcpy.bootstrap import progress
    from lxcpy.container import Container
    from lxcpy.errors import LxcpyError, StorageError, UsageError, visible
    from lxcpy.runtime.create import Request, answered, create

    if not args.template:
        raise UsageError("A template must be specified.", hint='-t NAME; "none" for a container without a rootfs')
    if args.dir and not os.path.isabs(args.dir):
        raise UsageError("--dir should use absolute path")
    if args.bdev not in (None, "dir", "none", "best"):
        raise StorageError(f'lxcpy-create makes storage of type dir so far, not "{args.bdev}"', hint="leave -B out")
    if args.fstype or args.fssize:
        raise UsageError("Filesystem type and size are only valid with block devices")
    if args.rest and args.rest[0] in ("-h", "--help"):
        sys.stdout.write(template_help({"template": args.template}))
        return 0
    if (told := answered(args.template, args.rest)) is not None:
        sys.stdout.write(visible(told))
        return 0
    container = Container(args.name, args.lxcpath)
    events = progress.Json() if args.json else None
    shown: progress.Progress = events or (progress.Silent() if args.quiet else progress.default())
    request = Request(
        name=container.name, lxcpath=container.lxcpath, template=args.template, words=args.rest,
        config=args.config, directory=args.dir, progress=shown, quiet=args.quiet, apart=args.json,
    )  # fmt: skip
    try:
        rootfs = create(request)
    except LxcpyError as error:
        if events is not None:
            events.failed(error)
        raise
    finally:
        shown.close()
    if events is not None:
        events.created(container.name, rootfs)
    return 0
