"""A config file that is edited: get, set and clear with liblxc's meaning, on a text of which nothing else changes.

An edit is tried as the smallest change of the text first (the line in place, the line taken out), then as a line at the
end, and the first one is taken whose text means what the edit means. So what is set is what a later load reads, also
where an include has a say, and comments, order and the lines of others stay byte for byte.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator, Sequence

from lxcpy.config import schema, text
from lxcpy.config.addresses import fill_hwaddr
from lxcpy.config.keys.row import INCLUDE, MAP, ONE, REMOVED
from lxcpy.config.lines import Loader, parse, read
from lxcpy.config.schema import Found
from lxcpy.config.settings import Settings
from lxcpy.errors import ConfigError, meaning


class ConfigFile:
    """The text of a config, and the settings that it and its includes amount to."""

    def __init__(self, content: str = "", file: str = "config") -> None:
        """`file` names the text in messages and is where relative includes start. Raises ConfigErrors."""
        self.file = file
        self.text = content
        self._settings, self._lines = self._evaluate(content)

    @classmethod
    def load(cls, path: str) -> ConfigFile:
        """The config at `path`. Raises ConfigError where it cannot be read, ConfigErrors where it is wrong."""
        try:
            content = read(path)
        except OSError as error:
            raise ConfigError(f'cannot read the config "{path}": {meaning(error)}') from error
        return cls(content, path)

    @classmethod
    def from_text(cls, content: str, file: str = "config") -> ConfigFile:
        """As the constructor."""
        return cls(content, file)

    # -- read --------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> str:
        """The key's canonical value, as lxc-info -c and python3-lxc show it; "" where it is not set.

        The items of a list stand one a line. Raises ConfigError for a key that does not exist, or has no value here.
        """
        found = self._find(key)
        try:
            return self._settings.get(found)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None

    def keys(self, prefix: str = "") -> list[str]:
        """The known keys; with a prefix, what may stand behind it. Raises ConfigError where that is nothing.

        `lxc.net.0` gives the keys that make sense for the type of interface 0, as liblxc's get_keys.
        """
        if not prefix:
            return self._names()
        head, _, number = prefix.rpartition(".")
        if head == "lxc.net" and number.isdigit():
            return self._net_keys(int(number))
        below = sorted(name[len(prefix) + 1 :] for name in self._names() if name.startswith(f"{prefix}."))
        if not below:
            raise ConfigError(f'"{prefix}" has no keys below it')
        return below

    @staticmethod
    def _names() -> list[str]:
        rows = [row for row in schema.ROWS if row.shape is not REMOVED and "[i]" not in row.name]
        return [row.name.removesuffix(".*") for row in rows]

    def _net_keys(self, index: int) -> list[str]:
        if index not in self._settings.nets:
            raise ConfigError(f"there is no interface {index}")
        kind = self._settings.nets[index].get("net.type", "empty")
        rows = [row for row in schema.ROWS if row.name.startswith("lxc.net.[i].") and row.needs in ("", kind)]
        if kind == "empty":
            rows = [row for row in rows if row.into in ("net.type", "net.flags", "net.script_up", "net.script_down")]
        return [row.name[12:] for row in rows]

    @property
    def settings(self) -> Settings:
        """What the text amounts to."""
        return self._settings

    # -- edit --------------------------------------------------------------------------------------------------------

    def set(self, key: str, value: str | Sequence[str]) -> None:
        """Replace the key's value, a list key's with all items given (python3-lxc's set_config_item).

        Raises ConfigError, and changes nothing then.
        """
        before = (self.text, self._settings, self._lines)
        items = [value] if isinstance(value, str) else list(value)
        try:
            if len(items) != 1 or self._find(key).row.shape is not ONE:
                self.clear(key)
            for item in items:
                self.append(key, item)
        except ConfigError:
            self.text, self._settings, self._lines = before
            raise

    def append(self, key: str, value: str) -> None:
        """Add a line `key = value` in meaning: list keys grow, others take the new value (liblxc's set_config_item).

        Raises ConfigError, and changes nothing then.
        """
        found = self._find(key)
        if found.row.shape is INCLUDE:
            self._append_include(value)
            return
        wanted = self._copy()
        try:
            wanted.set(found, _plain(value))
        except ValueError as error:
            raise ConfigError(f"{key}: {error}", hint=found.row.value.grammar) from None
        line = f"{key} = {text.quoted(value)}".rstrip(" ")
        self._take(wanted, self._candidates(found, line, replace=found.row.shape in (ONE, MAP) or not value))

    def clear(self, key: str) -> None:
        """Forget the key's value, wherever it comes from. Raises ConfigError where there is no such key."""
        found = self._find(key)
        if found.row.shape is INCLUDE or found.row.shape is REMOVED:
            self._take(None, iter([self._without(self._numbers(found))]))
            return
        wanted = self._copy()
        try:
            wanted.clear(found)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None
        line = f"{found.key} ="
        if found.row.empty is not schema.DEFAULT:  # where empty does not mean the default, the default is written
            line = f"{found.key} = {Settings().get(found)}"
        self._take(wanted, self._candidates(found, line, replace=False, remove=True))

    def draw_hwaddrs(self, draw: random.Random | None = None) -> bool:
        """Replace the `x` of each hwaddr that this text gives by random digits; whether there were any."""
        changed = False
        for index, nic in sorted(self._settings.nets.items()):
            address = nic.get("net.hwaddr", "")
            if "x" in address.lower() and self._numbers(schema.lookup(f"lxc.net.{index}.hwaddr")):
                self.append(f"lxc.net.{index}.hwaddr", fill_hwaddr(address, draw))
                changed = True
        return changed

    def save(self, path: str | None = None) -> None:
        """Write the text to `path`, else to the file it came from, as a whole or not at all.

        An existing file keeps its mode and owner; a new one has mode 0640. Raises ConfigError.
        """
        path = path or self.file
        try:
            save_text(path, self.text)
        except OSError as error:
            raise ConfigError(f'cannot write the config "{path}": {meaning(error)}') from error

    # -- inside ------------------------------------------------------------------------------------------------------

    def _find(self, key: str) -> Found:
        found = schema.lookup(key)
        if found is None:
            near = schema.nearest(key)
            raise ConfigError(f'unknown key "{key}"', hint=f"the nearest key is {near}" if near else None)
        return found

    def _evaluate(self, content: str) -> tuple[Settings, list[tuple[int, str, str]]]:
        loader = Loader(note_lines=True)
        loader.apply(parse(content), self.file)
        loader.check()
        return loader.settings, loader.lines

    def _copy(self) -> Settings:
        return self._evaluate(self.text)[0]

    def _append_include(self, value: str) -> None:
        if not value:
            self._take(None, iter([self._without([number for number, key, _ in self._lines if key == "lxc.include"])]))
            return
        self._take(None, iter([_at_end(self.text, f"lxc.include = {text.quoted(_plain(value))}")]))

    def _take(self, wanted: Settings | None, candidates: Iterator[str]) -> None:
        """Take the first text that means what is wanted. Raises ConfigError where none does."""
        problem: ConfigError | None = None
        state = wanted.state() if wanted is not None else None
        for content in candidates:
            try:
                settings, lines = self._evaluate(content)
            except ConfigError as error:
                problem = error
                continue
            if state is None or settings.state() == state:
                self.text, self._settings, self._lines = content, settings, lines
                return
        raise problem or ConfigError("the change cannot be written as text")

    def _candidates(self, found: Found, line: str, *, replace: bool, remove: bool = False) -> Iterator[str]:
        own = self._numbers(found)
        if remove:
            yield self._without(own)
        elif own and replace:
            yield self._replaced(own[-1], line)
        elif own:
            yield self._after(own[-1], line)
        if remove or replace:
            yield _at_end(self._without(own), line)
        yield _at_end(self.text, line)
        numbers = [number for number, _, _ in self._lines]
        yield self._after(numbers[-1] if numbers else 0, line)

    def _numbers(self, found: Found | None) -> list[int]:
        """The lines of this text that set the key."""
        if found is None:
            return []
        key = self._settings.resolved(found)
        return [number for number, other, _ in self._lines if other == key]

    def _without(self, numbers: Sequence[int]) -> str:
        gone = set(numbers)
        lines = self.text.split("\n")
        return "\n".join(line for number, line in enumerate(lines, 1) if number not in gone)

    def _replaced(self, number: int, line: str) -> str:
        """The text with another value in a line; the key stays as it is spelled there, and so do the blanks."""
        lines = self.text.split("\n")
        old = lines[number - 1]
        head, _, rest = old.partition("=")
        blanks = rest[: len(rest) - len(rest.lstrip(" \t"))] or " "
        value = line.partition("=")[2].strip(" ")
        end = "\r" if old.endswith("\r") else ""
        lines[number - 1] = f"{head}={blanks}{value}".rstrip(" \t") + end
        return "\n".join(lines)

    def _after(self, number: int, line: str) -> str:
        lines = self.text.split("\n")
        if number == len(lines):  # the last line has no line feed
            return _at_end(self.text, line)
        end = "\r" if number and lines[number - 1].endswith("\r") else ""
        lines.insert(number, line + end)
        return "\n".join(lines)


def _at_end(content: str, line: str) -> str:
    end = "\r\n" if "\r\n" in content else "\n"
    gap = "" if not content or content.endswith("\n") else end
    return f"{content}{gap}{line}{end}"


def _plain(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ValueError("a value cannot contain a line feed or a NUL")
    return value


def save_text(path: str, content: str) -> None:
    """Write a config's text, as a whole or not at all. Raises OSError."""
    directory, name = os.path.split(os.path.realpath(path))
    number, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory or ".")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(text.encode(content))
            try:
                status = os.stat(path)
            except FileNotFoundError:
                os.fchmod(file.fileno(), 0o640)
            else:
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, os.path.join(directory, name))
    except BaseException:
        os.unlink(temporary)
        raise
