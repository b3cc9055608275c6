"""Which proxy a URL goes through, from the environment as curl and apt read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from lxcpy.errors import BootstrapError


class Endpoint(NamedTuple):
    """A host to connect to; user and password where the URL holds them."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""


def endpoint(url: str) -> Endpoint:
    """The host of a URL. Raises BootstrapError for one that is no http or https URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BootstrapError(f'"{url}" is not a usable address: {error}') from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BootstrapError(f'"{url}" is not an http or https address')
    return Endpoint(
        parts.scheme,
        parts.hostname,
        port or (443 if parts.scheme == "https" else 80),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def for_host(target: Endpoint, environment: Mapping[str, str] = os.environ) -> Endpoint | None:
    """The proxy for a host, or None to connect directly.

    http_proxy is read in lower case only: in upper case a web server's client could set it.
    """
    if _excluded(target.host, target.port, environment.get("no_proxy") or environment.get("NO_PROXY") or ""):
        return None
    value = environment.get(f"{target.scheme}_proxy")
    if value is None and target.scheme == "https":
        value = environment.get("HTTPS_PROXY")
    if value is None:
        value = environment.get("all_proxy") or environment.get("ALL_PROXY")
    if not value or value == "DIRECT":
        return None
    return endpoint(value if "://" in value else f"http://{value}")


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
