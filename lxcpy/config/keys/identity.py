"""Who the container is: name, architecture, groups, lifetime, log."""

from __future__ import annotations

from lxcpy.config.keys.row import INCLUDE, ONE, REMOVED, WORDS, Row
from lxcpy.config.values import ARCH, FACILITY, HOST_NAME, INT, LOG_LEVEL, PATH, SWITCH, TEXT, UINT
from lxcpy.config.values import WORDS as WORD_LIST

ROWS = (
    Row("lxc.arch", "arch", ARCH, ONE, "0.7.3",
        "Architecture that the container's processes are told (personality)."),
    Row("lxc.uts.name", "uts.name", HOST_NAME, ONE, "2.1",
        "Host name inside the container.", old=("lxc.utsname",)),
    Row("lxc.include", "", PATH, INCLUDE, "0.9",
        "File, or directory of *.conf files, to read at this place."),
    Row("lxc.group", "group", WORD_LIST, WORDS, "1.0",
        "Groups the container belongs to, for autostart and ls."),
    Row("lxc.ephemeral", "ephemeral", SWITCH, ONE, "2.0",
        "Whether the container is destroyed when it stops."),
    Row("lxc.start.auto", "start.auto", SWITCH, ONE, "1.0",
        "Whether autostart picks the container."),
    Row("lxc.start.delay", "start.delay", UINT, ONE, "1.0",
        "Seconds autostart waits after starting the container."),
    Row("lxc.start.order", "start.order", INT, ONE, "1.0",
        "Place in autostart's order, lower first."),
    Row("lxc.log.file", "log.file", PATH, ONE, "2.1",
        "File that receives the container's log.", old=("lxc.logfile",)),
    Row("lxc.log.level", "log.level", LOG_LEVEL, ONE, "2.1",
        "Least level that is logged.", old=("lxc.loglevel",), unset="NOTSET"),
    Row("lxc.log.syslog", "log.syslog", FACILITY, ONE, "2.1",
        "Syslog facility that receives the log.", old=("lxc.syslog",)),
    Row("lxc.kmsg", "", TEXT, REMOVED, "0.9",
        "Link from /dev/kmsg to the console; gone since LXC 2.1."),
)  # fmt: skip
