"""Who may do what: capabilities, id maps, system call filters, labels."""

from __future__ import annotations

from lxcpy.config.keys.row import LIST, ONE, WORDS, Row
from lxcpy.config.values import CAPS, ID_MAP, KEPT_CAPS, PATH, PROXY, SWITCH, TEXT

ROWS = (
    Row("lxc.cap.drop", "cap.drop", CAPS, WORDS, "0.6.5",
        "Capabilities the container loses."),
    Row("lxc.cap.keep", "cap.keep", KEPT_CAPS, WORDS, "1.0",
        "Capabilities the container keeps; it loses all others."),
    Row("lxc.idmap", "idmap", ID_MAP, LIST, "2.1",
        "Range of user or group ids of the container and its place on the host.", old=("lxc.id_map",), joint="\n"),
    Row("lxc.no_new_privs", "no_new_privs", SWITCH, ONE, "2.1",
        "Whether no process may gain privileges by exec."),
    Row("lxc.seccomp.profile", "seccomp.profile", PATH, ONE, "2.1",
        "File of the system call filter.", old=("lxc.seccomp",)),
    Row("lxc.seccomp.allow_nesting", "seccomp.allow_nesting", SWITCH, ONE, "3.2",
        "Whether the filter is loaded on top of one that is active already."),
    Row("lxc.seccomp.notify.cookie", "seccomp.notify_cookie", TEXT, ONE, "3.2",
        "Text sent along with notifications."),
    Row("lxc.seccomp.notify.proxy", "seccomp.notify_proxy", PROXY, ONE, "3.2",
        "Socket of the process that answers notifications."),
    Row("lxc.apparmor.profile", "apparmor.profile", TEXT, ONE, "2.1",
        "AppArmor profile of init.", old=("lxc.aa_profile",)),
    Row("lxc.apparmor.allow_incomplete", "apparmor.allow_incomplete", SWITCH, ONE, "2.1",
        "Whether to start without AppArmor's mount rules.", old=("lxc.aa_allow_incomplete",)),
    Row("lxc.apparmor.allow_nesting", "apparmor.allow_nesting", SWITCH, ONE, "3.1",
        "Whether containers may run inside."),
    Row("lxc.apparmor.raw", "apparmor.raw", TEXT, LIST, "3.1",
        "Rule added to a generated profile."),
    Row("lxc.selinux.context", "selinux.context", TEXT, ONE, "2.1",
        "SELinux label of init.", old=("lxc.se_context",)),
    Row("lxc.selinux.context.keyring", "selinux.context_keyring", TEXT, ONE, "4.0",
        "SELinux label of the session keyring."),
)  # fmt: skip
