"""A suite's release file: the one signed thing, from which every other hash follows."""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from lxcpy.bootstrap import signature
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Expected, Mirrors, Missing, Unavailable
from lxcpy.bootstrap.keyring import Keyring
from lxcpy.bootstrap.packages import parse_stanza
from lxcpy.errors import BootstrapError
from lxcpy.log import Log

LOG = Log("bootstrap")
_LIMIT = 8 << 20  # bytes of a release file; sid's has 0.2 MB
_SKEW = 600  # seconds that clocks may differ
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FILE = re.compile(r"^ ([0-9a-f]{64}) +(\d+) +(\S+)$", re.MULTILINE)


class Trust(NamedTuple):
    """How far a mirror is believed.

    keyrings:    whose keys may sign.
    check:       False: unsigned or badly signed files are taken (--no-check-gpg).
    valid_until: False: an outdated one is taken, as snapshot mirrors need it.
    """

    keyrings: tuple[Keyring, ...] = ()
    check: bool = True
    valid_until: bool = True


class NoRelease(Unavailable):
    """The mirror is there but has no such release."""


class Release:
    """The fields of a verified release file; `files` maps a path below dists/SUITE to size and hash.

    sha256: of the text, without its signature. keys: fingerprints of those that signed it.
    """

    def __init__(self, text: str, *, keys: Sequence[str] = ()) -> None:
        head, _, rest = text.partition("\nSHA256:")
        self.fields = {**parse_stanza(head)}
        sums = re.split(r"^(?=[A-Z])", rest, maxsplit=1, flags=re.MULTILINE)
        if len(sums) > 1:
            self.fields = {**parse_stanza(sums[1]), **self.fields}
        self._sums = sums[0]
        self.keys = tuple(keys)
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._files: dict[str, Expected] | None = None

    @property
    def files(self) -> dict[str, Expected]:
        if self._files is None:
            self._files = {path: Expected(int(size), sha) for sha, size, path in _FILE.findall(self._sums)}
        return self._files

    @property
    def origin(self) -> str:
        return self.fields.get("Origin", "")

    @property
    def suite(self) -> str:
        return self.fields.get("Suite", "")

    @property
    def codename(self) -> str:
        return self.fields.get("Codename", "")

    @property
    def architectures(self) -> list[str]:
        return self.fields.get("Architectures", "").split()

    @property
    def components(self) -> list[str]:
        """Components without the prefix that Debian's security archive gives them."""
        return [word.rpartition("/")[2] for word in self.fields.get("Components", "").split()]

    @property
    def date(self) -> int:
        """Seconds since the epoch; 0 if there is none."""
        return parse_date(self.fields["Date"]) if "Date" in self.fields else 0

    @property
    def snapshot(self) -> str:
        """Where the archive keeps this state of it for good, as its field Snapshots tells (apt); "" if nowhere."""
        place = self.fields.get("Snapshots", "")
        return snapshot(place, self.date) if place.startswith(("http://", "https://")) else ""

    @property
    def valid_until(self) -> int:
        """Seconds since the epoch; 0 if it does not end."""
        return parse_date(self.fields["Valid-Until"]) if "Valid-Until" in self.fields else 0

    def index(self, component: str, arch: str) -> tuple[list[str], str, Expected] | None:
        """The best form of a Packages file: its names below dists/SUITE by preference, its compression, size and hash.

        gzip before xz: it costs half a second less than xz on one core, for 3 MB more.
        """
        base = f"{component}/binary-{arch}/Packages"
        for kind in ("gz", "xz", "zst", "bz2", ""):
            path = base + (f".{kind}" if kind else "")
            if path in self.files:
                expected = self.files[path]
                names = [path]
                if self.fields.get("Acquire-By-Hash") == "yes":
                    # A name that does not change its content while the mirror is updated.
                    names.insert(0, f"{component}/binary-{arch}/by-hash/SHA256/{expected.sha256}")
                return names, kind, expected
        return None

    def plain_size(self, path: str) -> int:
        """The size of an index when it is decompressed; 0 where the file does not tell."""
        base = path.partition("Packages")[0] + "Packages"
        return self.files[base].size if base in self.files else 0

    def index_architectures(self, arch: str) -> list[str]:
        """The architectures whose indices hold packages for `arch`."""
        apart = "all" in self.architectures and self.fields.get("No-Support-for-Architecture-all") != "Packages"
        return [arch, "all"] if apart else [arch]


def snapshot(place: str, date: int) -> str:
    """The address of an archive's state at a date: @SNAPSHOTID@ in it stands for the date, as for apt."""
    return place.replace("@SNAPSHOTID@", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(date))).rstrip("/")


def parse_date(text: str) -> int:
    """Seconds since the epoch from `Sat, 11 Jul 2026 10:16:37 UTC`. Raises BootstrapError."""
    words = text.replace(",", " ").split()
    try:
        _, day, month, year, clock, zone = words
        if zone not in ("UTC", "GMT", "+0000", "Z"):
            raise ValueError
        hour, minute, second = map(int, clock.split(":"))
        return calendar.timegm((int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second))
    except ValueError:
        raise BootstrapError(f'the release file holds a date that cannot be read: "{text}"') from None


def fetch(mirrors: Mirrors, suite: str, trust: Trust, store: Store | None = None) -> Release:
    """The verified release file of a suite. Raises BootstrapError."""
    with mirrors.session(f"dists/{suite}"):
        return _fetch(mirrors, suite, trust, store)


def _fetch(mirrors: Mirrors, suite: str, trust: Trust, store: Store | None) -> Release:
    base = f"dists/{suite}"
    name = f"{mirrors.bases[0].rstrip('/')}/{base}/InRelease"
    try:
        data = mirrors.read(f"{base}/InRelease", _LIMIT)
        text, keys = _verified(data, None, trust, name)
    except Missing:
        name = name.replace("InRelease", "Release")
        data = _read(mirrors, f"{base}/Release", suite)
        try:
            apart: bytes | None = mirrors.read(f"{base}/Release.gpg", _LIMIT)
        except Missing:
            apart = None
        text, keys = _verified(data, apart, trust, name, detached=True)
    release = Release(text.decode(errors="replace"), keys=keys)
    check(release, suite, trust, name)
    if store is not None and trust.check:
        _remember(store, release, name)
    return release


def _read(mirrors: Mirrors, path: str, suite: str) -> bytes:
    try:
        return mirrors.read(path, _LIMIT)
    except Missing as error:
        raise NoRelease(
            f'the mirror {mirrors.bases[0]} has no release "{suite}" ({error})',
            hint="check the name of the release and the address of the mirror",
        ) from error


def _verified(
    data: bytes, apart: bytes | None, trust: Trust, name: str, *, detached: bool = False
) -> tuple[bytes, tuple[str, ...]]:
    """The signed text and who signed it; the bare text where nothing is to be checked."""
    if not trust.check:
        return (data if detached else signature.split(data, name)[0]), ()
    if not trust.keyrings:
        raise BootstrapError(
            f"{name}: there is no keyring to check its signature with",
            hint="install the distribution's keyring package, or give a file with --keyring",
        )
    if not detached:
        return signature.verify_inline(data, trust.keyrings, name=name)
    if apart is None:
        raise BootstrapError(
            f"{name} is not signed", hint="--no-check-gpg takes it, if you trust the network and the mirror"
        )
    return signature.verify_detached(data, apart, trust.keyrings, name=name)


def check(release: Release, suite: str, trust: Trust, name: str) -> None:
    """That a release file is the one asked for, and of today. Raises BootstrapError."""
    # Debian's security archive was called SUITE/updates once.
    wanted = {suite, suite.replace("/updates", "-security"), suite.removesuffix("/updates")}
    if not wanted & {release.suite, release.codename}:
        raise BootstrapError(
            f'{name} is about "{release.suite or release.codename}" ({release.codename}), not "{suite}"',
            hint="the mirror, or somebody on the way, gives another release than was asked for",
        )
    if release.suite.startswith(f"{release.codename}-") and suite == release.codename:
        # Ubuntu's pockets all bear the code name of their release.
        raise BootstrapError(
            f'{name} is about the pocket "{release.suite}", not the release "{suite}"',
            hint="the mirror, or somebody on the way, gives another suite than was asked for",
        )
    now = time.time()
    if not release.date:
        raise BootstrapError(
            f"{name} has no date", hint="without one an old state of the mirror could be replayed: try another mirror"
        )
    if release.date > now + _SKEW:
        raise BootstrapError(
            f"{name} is dated in the future ({release.fields['Date']})", hint="set the clock of this machine"
        )
    if trust.valid_until and 0 < release.valid_until < now - _SKEW:
        raise Unavailable(
            f"{name} is out of date since {release.fields['Valid-Until']}",
            hint="the mirror is no longer updated, or the clock is wrong; for a snapshot, --no-check-valid-until",
        )
    if not release.files:
        raise BootstrapError(f"{name} names no file by its SHA256", hint="the mirror is too old to be trusted")


def _remember(store: Store, release: Release, name: str) -> None:
    """Refuse a release file older than one that this mirror gave before; note the newest."""
    path = "releases/" + re.sub(r"[^A-Za-z0-9.-]+", "_", name.partition("://")[2])
    seen = (store.read_small(path) or b"0").strip()
    newest = int(seen) if seen.isdigit() else 0
    if release.date < newest:
        before = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(newest))
        raise BootstrapError(
            f"{name} is of {release.fields['Date']}, older than the one of {before} that this mirror gave before",
            hint="the mirror went back in time, or somebody replays an old state of it: try another with --mirror; "
            f"to take it, remove {store.directory}/{path}",
        )
    if release.date > newest:
        store.write(path, f"{release.date}\n".encode())
