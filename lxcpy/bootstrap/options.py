"""The options of the templates that are not of Debian's kind, by engine."""

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """An option of a template's command line: long name, letter, what its value is called (None: a switch), help."""

    long: str
    short: str
    value: str | None
    help: str


BUSYBOX = (Setting("busybox-path", "", "FILE", "the busybox to install (default: the one in PATH)"),)
LOCAL = (
    Setting("fstree", "f", "FILE", "the root filesystem: a tar archive, compressed or not, or a squashfs image"),
    Setting("metadata", "m", "FILE", "the image's meta archive: config, excludes, fstab, templates, create-message"),
    Setting("no-dev", "", None, "leave out what the archive has in /dev"),
)
DOWNLOAD = (
    Setting("dist", "d", "NAME", "the distribution (asked for if it is not given)"),
    Setting("release", "r", "NAME", "the release (asked for if it is not given)"),
    Setting("arch", "a", "NAME", "the architecture (asked for if it is not given)"),
    Setting("variant", "v", "NAME", "the variant of the image (default: default)"),
    Setting("server", "", "URL", "the image server, a name or a URL, or several (default: the template's)"),
    Setting("list", "l", None, "print what the server has, those of the above that are given taken as a filter"),
    Setting("ca", "", "FILE", "the certificates of the authority that vouches for the server, a private one"),
    Setting("keyring", "", "FILE", "the keys of which one must have signed the image (default: https has to do)"),
    Setting("keyid", "", "FINGERPRINT", "the one key of that keyring that must have signed"),
    Setting("no-validate", "", None, "take what comes: no signature, no hash, over http too"),
    Setting("flush-cache", "", None, "forget the cached image"),
    Setting("force-cache", "", None, "take the cached image although it has expired"),
    Setting("offline", "", None, "take the cached image, fetch nothing"),
)
OCI = (
    Setting("url", "u", "URL", "the image: oci:PATH:TAG, oci-archive:FILE:TAG, a path, or what skopeo knows"),
    Setting("arch", "a", "NAME", "the architecture to choose (default: the host's)"),
    Setting("username", "", "NAME", "the user at the registry"),
    Setting("password", "", "PASSWORD", "the password there, which others see here (better: LXCPY_OCI_PASSWORD)"),
    Setting("authfile", "", "FILE", "the registry's credentials as skopeo login keeps them"),
    Setting("dhcp", "", None, "run a DHCP client of the host for the container, by LXC's hook"),
    Setting("no-cache", "", None, "neither read nor write a cache"),
    Setting("offline", "", None, "take what skopeo fetched before, fetch nothing"),
)
ALPINE = (
    Setting("release", "r", "RELEASE", "the release, such as 3.20 or edge (default: the newest stable one)"),
    Setting("arch", "a", "ARCH", "the architecture (default: the host's)"),
    Setting("mirror", "m", "URL", "the mirror, or several (default: the template's)"),
    Setting("repository", "", "URL", "further repositories, by the URL above their architectures"),
    Setting("packages", "", "A,B", "further packages; words that are no option are packages too"),
    Setting("ca", "", "FILE", "the certificates of the authority that vouches for the server, a private one"),
    Setting("keys", "", "FOLDER", "the keys of which one must have signed (default: APK_KEYS_DIR, else Alpine's)"),
    Setting("allow-untrusted", "", None, "take indices that are not signed"),
    Setting("flush-cache", "F", None, "make the cached root filesystem anew"),
    Setting("no-cache", "", None, "neither read nor write a cached root filesystem"),
    Setting("offline", "", None, "take all from the cache, fetch nothing"),
    Setting("debug", "d", None, "trace the template's scripts, and keep the log"),
)
REST = {"alpine": "packages"}  # the option that takes the words which are none
REFUSED = {"download": (Setting("keyserver", "", "URL", ""),)}  # known to be told why not
