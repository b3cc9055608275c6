"""Which proxy a URL goes through: from apt's configuration and from the environment, as apt and curl read them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from lxcpy.errors import BootstrapError
from lxcpy.log import Log

LOG = Log("bootstrap")
_DETECTION = 10.0  # seconds that a program of Proxy-Auto-Detect may take


class Endpoint(NamedTuple):
    """A host to connect to; user and password where the URL holds them."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def endpoint(url: str) -> Endpoint:
    """The host of a URL. Raises BootstrapError for one that is no http or https URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BootstrapError(f'"{clean(url)}" is not a usable address: {error}') from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BootstrapError(f'"{clean(url)}" is not an http or https address')
    return Endpoint(
        parts.scheme,
        parts.hostname,
        port or (443 if parts.scheme == "https" else 80),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def clean(url: str) -> str:
    """A URL without the user and password in it: for messages, logs and files."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    place, slash, path = rest.partition("/")
    return scheme + mark + place.rpartition("@")[2] + slash + path


class Proxies:
    """The proxies of this machine.

    apt: its settings by lower-case name (hostapt.settings), none to follow the environment alone. As with apt, they
    win over http_proxy, and no_proxy over both.
    """

    def __init__(self, apt: Mapping[str, str] | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self.apt = apt or {}
        self.environment = environment
        self._detected: dict[str, str] = {}

    def for_host(self, target: Endpoint) -> Endpoint | None:
        """The proxy for a host, or None to connect directly. Raises BootstrapError for one that is of no use."""
        environment = self.environment
        if _excluded(target.host, target.port, environment.get("no_proxy") or environment.get("NO_PROXY") or ""):
            return None
        value = self._of_apt(target)
        if value is None:
            value = _of_environment(target.scheme, environment)
        if not value or value.upper() == "DIRECT":
            return None
        return endpoint(value if "://" in value else f"http://{value}")

    def _of_apt(self, target: Endpoint) -> str | None:
        """apt.conf(5), Acquire::http and apt-transport-https(1); None where it says nothing."""
        base = f"acquire::{target.scheme}::proxy"
        found = self.apt.get(f"{base}::{target.host}")
        if found is None:
            program = self.apt.get(f"{base}-auto-detect") or self.apt.get(f"acquire::{target.scheme}::proxyautodetect")
            if program:
                found = self._detect(program, f"{target.scheme}://{target.host}")
        return found or self.apt.get(base) or None

    def _detect(self, program: str, url: str) -> str | None:
        """What a program of Proxy-Auto-Detect says of a host; None where it says nothing."""
        if url not in self._detected:
            try:
                argv = [program, url]
                done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DETECTION)
                self._detected[url] = done.stdout.decode(errors="replace").strip().split("\n")[0].strip()
            except (OSError, subprocess.TimeoutExpired) as error:
                LOG.warn(f"apt's Proxy-Auto-Detect: {program}: {error}")
                self._detected[url] = ""
        return self._detected[url] or None


def _of_environment(scheme: str, environment: Mapping[str, str]) -> str | None:
    """http_proxy is read in lower case only: in upper case a web server's client could set it."""
    value = environment.get(f"{scheme}_proxy")
    if value is None and scheme == "https":
        value = environment.get("HTTPS_PROXY")
    if value is None:
        value = environment.get("all_proxy") or environment.get("ALL_PROXY")
    return value


def _excluded(host: str, port: int, rules: str) -> bool:
    host = host.lower()
    for rule in rules.replace(",", " ").lower().split():
        name, _, wanted = rule.partition(":") if rule.count(":") == 1 else (rule, "", "")
        if wanted and wanted != str(port):
            continue
        name = name.lstrip("*").lstrip(".").strip("[]")
        if rule == "*" or host == name or (name and host.endswith("." + name)):
            return True
    return False
