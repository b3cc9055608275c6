"""The console and the ttys: pseudo terminals of the container's devpts, shown under their names in /dev (D5, D6)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from lxcpy.config.model import Config
from lxcpy.errors import RootfsError
from lxcpy.kernel import mount
from lxcpy.kernel.fd import Fd, exists_in_root, make_dirs_in_root, open_in_root, unlink_in_root
from lxcpy.kernel.pty import open_pty
from lxcpy.rootfs.context import DIRECTORY, Context
from lxcpy.rootfs.dev import mount_point


@dataclass
class Terminals:
    """The masters, for the supervisor, and the console's slave, for init's descriptors 0, 1 and 2.

    console:      master; None with lxc.console.path = none
    console_slave: what init gets as its standard descriptors; None with `none`
    console_path: the name in the container, `/dev/console`; empty with `none`
    ttys:         masters of tty1, tty2, …
    tty_names:    `pts/1`, …, as systemd reads them in container_ttys
    """

    console: Fd | None = None
    console_slave: Fd | None = None
    console_path: str = ""
    ttys: list[Fd] = field(default_factory=list)
    tty_names: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What the start hooks, and from LXC 7 on init, read about them."""
        return {"container_ttys": " ".join(self.tty_names)} if self.tty_names else {}

    def close(self) -> None:
        """Close every descriptor, when the supervisor has its copies."""
        for fd in (self.console, self.console_slave, *self.ttys):
            if fd is not None:
                fd.close()


def make(context: Context, config: Config, *, execute: bool = False) -> Terminals:
    """Allocate the terminals and put them in place, after the devices and before the change of root.

    execute: a single program runs, not a system (lxc-execute): ttys are allocated but have no names. Raises
    RootfsError.
    """
    terminals = Terminals()
    mask = os.umask(0)
    try:
        if config.console.path != "none":
            _make_console(context, config, terminals)
        _make_ttys(context, config, terminals, named=context.own_root and not execute)
        if config.pty.max <= 0 and context.devpts is not None:
            # it was there for the ttys alone, which live on without a mount
            context.devpts.close()
            context.devpts = None
            with open_in_root(context.dev_fd(), "pts", DIRECTORY) as place:
                mount.umount(place.path, mount.MNT_DETACH)
    except OSError as error:
        terminals.close()
        hint = None
        if error.errno == 28:
            hint = "raise lxc.pty.max, or the host's kernel.pty.max"
        elif error.errno == 2:
            hint = "the root file system has no usable /dev: set lxc.autodev = 1"
        at = config.at("lxc.tty.max") if terminals.console is not None else config.at("lxc.console.path")
        raise RootfsError(f"cannot set up the console and ttys: {error.strerror or error}", at=at, hint=hint) from error
    finally:
        os.umask(mask)
    return terminals


def remake(root: int, config: Config, join: Callable[[], None]) -> Terminals:
    """New terminals for a running container whose old masters are gone, in place of the old ones.

    root: its root directory. join: enters its mount namespace, after which the host's /proc is out of sight; the
    calling process is to end then. What has no devpts of its own gets no terminals. Raises OSError.
    """
    terminals = Terminals()
    if config.pty.max <= 0:
        return terminals
    with open_in_root(root, "dev", DIRECTORY) as dev, open_in_root(root, "dev/pts", DIRECTORY) as devpts:
        made = []
        if config.console.path != "none" and config.pty.max > 1:
            made.append("console")
        made += [f"tty{number}" for number in range(1, config.tty.max + 1)]
        opened = [open_pty(f"{devpts.path}/ptmx") for _ in made]
        join()
        os.fchdir(dev.number)
        for name, (master, slave, index) in zip(made, opened, strict=True):
            for place in [name, f"{config.tty.dir}/{name}"] if config.tty.dir else [name]:
                if os.path.islink(place):
                    continue  # it leads to the one below lxc.tty.dir
                try:
                    mount.umount(place, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
                except OSError:
                    pass  # nothing is mounted there any more
                _show(devpts.number, str(index), dev.number, place, slave)
            slave.close()
            if name == "console":
                terminals.console = master
            else:
                terminals.ttys.append(master)
    return terminals


def _make_console(context: Context, config: Config, terminals: Terminals) -> None:
    # with room for one alone, the terminal must not be taken from the container
    own = context.devpts is not None and config.pty.max > 1
    if own and context.devpts is not None:
        master, slave, index = open_pty(f"{context.devpts.path}/ptmx")
        devpts, name = context.devpts.number, str(index)
    else:
        master, slave, index = open_pty(f"{context.host_dev.path}/ptmx")
        devpts, name = context.host_dev.number, f"pts/{index}"
    terminals.console, terminals.console_slave, terminals.console_path = master, slave, "/dev/console"
    os.fchmod(slave.number, 0o620)
    dev = context.dev_fd()
    if not context.own_dev:
        # the host's /dev gets nothing new; what is there is covered in our mount namespace alone
        if exists_in_root(dev, "console"):
            _show(devpts, name, dev, "console", slave)
        return
    directory = config.tty.dir
    if directory:
        make_dirs_in_root(dev, directory).close()
        _show(devpts, name, dev, f"{directory}/console", slave)
    _show(devpts, name, dev, "console", slave)


def _make_ttys(context: Context, config: Config, terminals: Terminals, *, named: bool) -> None:
    if config.tty.max <= 0 or context.devpts is None:
        return
    dev = context.dev_fd()
    directory = config.tty.dir
    if directory and named:
        make_dirs_in_root(dev, directory).close()
    multiplexer = f"{context.devpts.path}/ptmx"
    for number in range(1, config.tty.max + 1):
        master, slave, index = open_pty(multiplexer)
        with slave:
            terminals.ttys.append(master)
            terminals.tty_names.append(f"pts/{index}")
            if not named:
                continue
            name = f"tty{number}"
            if not directory:
                _show(context.devpts.number, str(index), dev, name, slave)
                continue
            _show(context.devpts.number, str(index), dev, f"{directory}/{name}", slave)
            try:
                unlink_in_root(dev, name)
            except FileNotFoundError:
                pass
            os.symlink(f"{directory}/{name}", name, dir_fd=dev)


def _show(devpts: int, name: str, dev: int, place: str, slave: Fd) -> None:
    """Bind the terminal `name` of a devpts on `place` below /dev, after a look that it is the one we opened."""
    with mount.open_tree(devpts, name, mount.OPEN_TREE_CLONE) as tree:
        shown, opened = os.fstat(tree.number), os.fstat(slave.number)
        if shown.st_rdev != opened.st_rdev or shown.st_ino != opened.st_ino:
            raise OSError(19, f"terminal {name} is not the one that was opened")
        with mount_point(dev, place) as target:
            mount.move_mount(tree.number, target.number)
