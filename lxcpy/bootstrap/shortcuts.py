"""Programs that maintainer scripts call again and again though the answer, in a first installation, is known.

A start of Perl with deb-systemd-helper's modules takes 40 ms, and each unit of a package makes three.
"""

from __future__ import annotations

NOTHING_DONE = "/usr/bin/true"
# Each of its dozens of calls does nothing, in 5 ms: there is no older version whose files could be moved or removed.
COVERED = (("/usr/bin/dpkg-maintscript-helper", NOTHING_DONE),)
REAL = "@real@"  # in a script: where the program is that it stands before
# deb-systemd-helper(1p): what is not masked is not unmasked, and what it knows nothing of counts as enabled.
_SYSTEMD = f"""#!/bin/sh
state=/var/lib/systemd/deb-systemd
case "${{DPKG_MAINTSCRIPT_PACKAGE:+$#}} $1 $2 $3" in
*/*) ;;
"2 unmask "*)
    [ -e "/etc/systemd/system/$2" ] || [ -e $state-helper-masked ] || [ -e $state-user-helper-masked ] || exit 0
    ;;
"3 --quiet was-enabled "*)
    [ -e "$state-helper-enabled/$3.dsh-also" ] || exit 0
    ;;
esac
exec {REAL} "$@"
"""
SCRIPTS = (("/usr/bin/deb-systemd-helper", _SYSTEMD),)
