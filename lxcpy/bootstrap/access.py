"""How this machine reaches servers: proxies, logins and TLS, as the caller, the environment and apt's settings say.

Logins come from the address itself, from apt_auth.conf(5) and from ~/.netrc. One in an address is taken out of it at
once and kept here, so that no message, log or file can hold it.
"""

from __future__ import annotations

import base64
import glob
import netrc
import os
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from lxcpy.bootstrap.proxy import Endpoint, Proxies, clean, endpoint
from lxcpy.errors import BootstrapError, meaning
from lxcpy.log import Log

LOG = Log("bootstrap")
APT_AUTH = "/etc/apt/auth.conf"


class Login(NamedTuple):
    """An entry of apt_auth.conf(5): for addresses of `scheme` and `host` (and `port` if it is not 0) below `path`."""

    schemes: tuple[str, ...]
    host: str
    port: int
    path: str
    user: str
    password: str

    def fits(self, target: Endpoint, path: str) -> bool:
        return (
            target.scheme in self.schemes and target.host == self.host and self.port in (0, target.port)
            and (path + "/").startswith(self.path.rstrip("/") + "/")
        )  # fmt: skip


class Access:
    """The ways to servers, for all threads of a download.

    ca: a file of authorities' certificates, believed beside the machine's own ones (SSL_CERT_FILE and SSL_CERT_DIR
    replace those, as everywhere). apt: apt's settings by lower-case name (hostapt.settings); with them its proxies,
    its logins and its certificates are used too.
    """

    def __init__(
        self, *, ca: str = "", apt: Mapping[str, str] | None = None, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.apt = apt
        self.environment = environment
        self.proxies = Proxies(apt, environment)
        self._ca = ca
        self._given: dict[tuple[str, str, int], tuple[str, str]] = {}
        self._logins: list[Login] | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    def learn(self, url: str) -> str:
        """The address without the login in it, which is kept. Raises BootstrapError."""
        if "@" not in url.partition("://")[2].partition("/")[0]:
            return url
        found = endpoint(url)
        self._given[found[:3]] = (found.user, found.password)
        return clean(url)

    def authorization(self, url: str) -> str:
        """The header's value for a URL; "" where there is no login."""
        target, path = endpoint(url), urlsplit(url).path
        if found := self._given.get(target[:3]):
            return basic(*found)
        if self._logins is None:
            self._logins = [*(apt_logins() if self.apt is not None else []), *_netrc(self.environment)]
        best = max((one for one in self._logins if one.fits(target, path)), key=lambda o: len(o.path), default=None)
        return basic(best.user, best.password) if best else ""

    def tls(self, host: str) -> ssl.SSLContext:
        """The context for connections to a host. Raises BootstrapError for certificates that cannot be read."""
        if host not in self._contexts:
            self._contexts[host] = self._context(host)
        return self._contexts[host]

    def _context(self, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        path = self._ca or self._apt_file("cainfo", host)
        try:
            if path:
                context.load_verify_locations(path)
            if certificate := self._apt_file("sslcert", host):
                context.load_cert_chain(certificate, self._apt_file("sslkey", host) or None)
        except OSError as error:  # ssl.SSLError too
            words = meaning(error) if not isinstance(error, ssl.SSLError) else str(error.reason or error)
            name = path if path and not os.access(path, os.R_OK) else path or certificate
            raise BootstrapError(
                f'cannot use the certificates in "{name}": {words}', hint="the file must hold them in PEM format"
            ) from error
        return context

    def _apt_file(self, name: str, host: str) -> str:
        """A file that apt-transport-https(1) is told to use."""
        settings = self.apt or {}
        return settings.get(f"acquire::https::{host}::{name}") or settings.get(f"acquire::https::{name}") or ""


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def apt_logins(path: str = APT_AUTH) -> list[Login]:
    """The entries of auth.conf and auth.conf.d; one without a scheme is for https alone."""
    return [login for name in [path, *sorted(glob.glob(f"{path}.d/*.conf"))] for login in _read(name, ("https",))]


def _netrc(environment: Mapping[str, str]) -> list[Login]:
    path = environment.get("NETRC") or os.path.join(environment.get("HOME") or "/", ".netrc")
    return _read(path, ("http", "https"))


def _read(path: str, schemes: tuple[str, ...]) -> list[Login]:
    """The entries of a file in netrc's format; none where it is missing or cannot be understood."""
    try:
        found = netrc.netrc(path).hosts
    except FileNotFoundError:
        return []
    except netrc.NetrcParseError as error:
        LOG.warn(f"{path}:{error.lineno}: {error.msg}: no login is taken from there")
        return []
    except (OSError, UnicodeDecodeError) as error:
        LOG.warn(f"{path}: {error}: no login is taken from there")
        return []
    logins = []
    for machine, (user, _, password) in found.items():
        scheme, mark, rest = machine.rpartition("://")
        place, slash, inside = rest.partition("/")
        try:
            parts = urlsplit(f"//{place}")
            host, port = parts.hostname or "", parts.port or 0
        except ValueError:
            continue
        if host and machine != "default":
            logins.append(Login((scheme,) if mark else schemes, host, port, slash + inside, user, password or ""))
    return logins
