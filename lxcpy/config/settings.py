"""Settings: what the lines read so far amount to. The semantics of set, get and clear for every shape of key.

Values are keyed by the row's `into`; what is not there has the model's default. Interfaces are kept apart, by index.
Knows no file and no include: `load` and `file` feed it. A refused value (ValueError) changes nothing.
"""

from __future__ import annotations

from typing import Any

from lxcpy.config import schema
from lxcpy.config.keys.row import CGROUP, FOLD, GROUP, INCLUDE, LIST, MAP, ONE, REMOVED, WORDS, Row
from lxcpy.config.presets import is_preset
from lxcpy.config.schema import LAST, Found
from lxcpy.config.values import NAMESPACES
from lxcpy.errors import Origin

# Two keys of which only one may be used; the pair of capabilities is cleared together.
EXCLUDES = {
    "cap.drop": ("cap.keep", "lxc.cap.keep"),
    "cap.keep": ("cap.drop", "lxc.cap.drop"),
    "namespace.clone": ("namespace.keep", "lxc.namespace.keep"),
    "namespace.keep": ("namespace.clone", "lxc.namespace.clone"),
}
ANY_TYPE = "?"  # the type of an interface whose type is wrong: no model is made of it
_AUTO_FAMILIES = {"proc": 0, "sys": 1, "cgroup": 2, "cgroup-full": 2, "cgroup2": 2, "shmounts": 3}

_HOOKS = tuple(row.into for row in schema.ROWS if row.shape is LIST and row.into.startswith("hook."))
_LISTS = frozenset(row.into for row in schema.ROWS if row.shape not in (ONE, REMOVED)) - {"cap.keep"}

Where = Origin | None


class Settings:
    """The settings of one container while they are read or edited."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.where: dict[str, Any] = {}  # into → origin, list of origins, or sub-key → origin
        self.nets: dict[int, dict[str, Any]] = {}
        self.nets_where: dict[int, dict[str, Any]] = {}
        self.last_net: int | None = None  # the interface that unindexed old names mean
        self.highest_net = -1  # the highest index so far
        self.order = 0  # counts the limits
        # (dialect, sub-key) → (order, value, origin): many limits can come and go in one file
        self._limits: dict[tuple[int, str], list[tuple[int, str, Where]]] = {}

    @property
    def limits(self) -> list[tuple[int, str, str, Where]]:
        """The limits of control groups in the order of their lines: (dialect, sub-key, value, origin)."""
        found = [(order, key, value, at) for key, items in self._limits.items() for order, value, at in items]
        return [(key[0], key[1], value, at) for _, key, value, at in sorted(found, key=lambda item: item[0])]

    # -- set ---------------------------------------------------------------------------------------------------------

    def parse(self, found: Found, text: str) -> Any:
        """The value of a text that is not empty. Raises ValueError."""
        row = found.row
        if row.shape is GROUP:
            raise ValueError("takes no value; empty, it clears what is below")
        if found.sub is not None:
            if not found.sub:
                raise ValueError(f"needs a sub-key, {row.name}")
            if row.sub:
                row.sub.parse(found.sub)
        return row.value.parse(text)

    def set(self, found: Found, text: str, at: Where = None) -> None:
        """Apply one line. Raises ValueError."""
        if text == "":
            self.set_empty(found)
        else:
            self.put(found, self.parse(found, text), at)

    def put(self, found: Found, value: Any, at: Where = None) -> None:
        """Apply the value that `parse` made. Raises ValueError where other settings forbid it."""
        row = found.row
        values, where = self.values, self.where
        if found.net is not None:
            values, where = self._interface(found)
        into, shape = row.into, row.shape
        if shape is ONE:
            values[into] = value
            where[into] = at
            return
        other = EXCLUDES[into][0] if into in EXCLUDES else ""
        if other in values and (values[other] or other == "cap.keep"):  # `keep none` counts, though it keeps nothing
            raise ValueError(f"cannot be used together with {EXCLUDES[into][1]}")
        if shape is LIST:
            values.setdefault(into, []).append(value)
            where.setdefault(into, []).append(at)
        elif shape is WORDS:
            self._put_words(into, value, at)
        elif shape is MAP:
            values.setdefault(into, {})[found.sub] = value
            where.setdefault(into, {})[found.sub] = at
        elif shape is CGROUP:
            self.order += 1
            self._limits.setdefault((_dialect(row), found.sub or ""), []).append((self.order, value, at))
        elif shape is FOLD:
            self._fold(into, value, at)
        elif row.into:  # REMOVED, yet it still says something
            values[into] = value

    def _put_words(self, into: str, words: list[Any], at: Where) -> None:
        values, where = self.values.setdefault(into, []), self.where.setdefault(into, [])
        if words[:1] == ["none"] and into == "cap.keep":
            values.clear()
            where.clear()
            words = words[1:]
        values.extend(words)
        where.extend([at] * len(words))

    def _fold(self, into: str, value: Any, at: Where) -> None:
        values, where = self.values, self.where
        if into == "mount.auto":  # one token a filesystem: the last
            tokens = dict(zip(values.get(into, ()), where.get(into, ()), strict=True))
            for token in value:
                family = _AUTO_FAMILIES[token.partition(":")[0]]
                tokens = {word: it for word, it in tokens.items() if _AUTO_FAMILIES[word.partition(":")[0]] != family}
                tokens[token] = at
            values[into] = sorted(tokens, key=lambda word: _AUTO_FAMILIES[word.partition(":")[0]])
            where[into] = [tokens[word] for word in values[into]]
        elif into.startswith("namespace."):
            names = {*values.get(into, ()), *value}
            values[into] = [name for name in NAMESPACES if name in names]
            where[into] = [at] * len(values[into])
        else:  # a time: seconds and nanoseconds are set apart
            seconds, parts = values.get(into, (0, 0))
            values[into] = (seconds if value[0] is None else value[0], parts if value[1] is None else value[1])
            where[into] = at

    def _interface(self, found: Found) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of the interface that a key means, begun where the key begins one."""
        index = found.net
        if index == LAST:
            if found.row.into == "net.type":
                self.last_net = self.highest_net + 1
            if self.last_net is None or (self.last_net not in self.nets and found.row.into != "net.type"):
                raise ValueError("stands before the first lxc.network.type, which begins an interface")
            index = self.last_net
        assert index is not None
        nic = self.nets.get(index, {})
        needs = found.row.needs
        if needs and nic.get("net.type") not in (needs, ANY_TYPE):
            raise ValueError(f"needs lxc.net.{index}.type = {needs} before it")
        if found.row.into == "net.type":  # a type begins the interface anew, as in LXC
            nic.clear()
            self.nets_where[index] = {}
        self.nets[index] = nic
        self.highest_net = max(self.highest_net, index)
        return nic, self.nets_where.setdefault(index, {})

    def resolved(self, found: Found) -> str:
        """The modern key, with the number of the interface that an old name without one means."""
        if found.net == LAST:
            return found._replace(net=self.last_net or 0).key
        return found.key

    def state(self) -> Any:
        """All settings in a form that can be compared: where they were written does not count."""
        values = {into: value for into, value in self.values.items() if value or into not in _LISTS}
        limits = [limit[:3] for limit in self.limits]
        nets = {index: {k: v for k, v in nic.items() if v or k not in _LISTS} for index, nic in self.nets.items()}
        return values, limits, nets

    # -- clear -------------------------------------------------------------------------------------------------------

    def set_empty(self, found: Found) -> None:
        """What a line with an empty value does. Raises ValueError."""
        row = found.row
        if row.empty is not schema.DEFAULT:
            self.values[row.into] = row.empty
            self.where.pop(row.into, None)
        else:
            self.clear(found)

    def clear(self, found: Found) -> None:
        """Back to the default. Raises ValueError."""
        row, into = found.row, found.row.into
        if found.net is not None:
            self._clear_net(found)
        elif row.shape is GROUP:
            if into == "net":
                self.nets.clear()
                self.nets_where.clear()
                self.last_net, self.highest_net = None, -1
            else:
                for other in _HOOKS:
                    self._forget(other)
        elif row.shape is MAP and found.sub:
            if row.sub:
                row.sub.parse(found.sub)
            self.values.get(into, {}).pop(found.sub, None)
            self.where.get(into, {}).pop(found.sub, None)
        elif row.shape is CGROUP:
            self._clear_cgroup(found)
        else:
            self._forget(into)
            if into in ("cap.drop", "cap.keep"):
                self._forget(EXCLUDES[into][0])

    def _clear_cgroup(self, found: Found) -> None:
        """Forget a limit, or all of one dialect.

        A list of devices that is emptied is also forgotten in the other dialect, as far as presets wrote it: they say
        the same policy twice, and the wish to be rid of it must not depend on which one the host takes.
        """
        dialect = _dialect(found.row)
        keys = [(dialect, found.sub)] if found.sub else [key for key in self._limits if key[0] == dialect]
        for key in keys:
            self._limits.pop(key, None)
            twin = (3 - dialect, key[1])
            if key[1].startswith("devices.") and twin in self._limits:
                kept = [item for item in self._limits[twin] if item[2] is None or not is_preset(item[2].file)]
                if len(kept) < len(self._limits[twin]):
                    self._limits[twin] = kept

    def _forget(self, into: str) -> None:
        self.values.pop(into, None)
        self.where.pop(into, None)

    def _clear_net(self, found: Found) -> None:
        index = self.last_net if found.net == LAST else found.net
        if found.row.shape is GROUP:
            self.nets.pop(index or 0, None)
            self.nets_where.pop(index or 0, None)
        elif index is None or index not in self.nets:
            raise ValueError(f"there is no interface {'yet' if index is None else index} to clear it of")
        elif found.row.into == "net.type":
            self.nets[index].clear()
            self.nets_where[index].clear()
        else:
            self.nets[index].pop(found.row.into, None)
            self.nets_where[index].pop(found.row.into, None)

    # -- get ---------------------------------------------------------------------------------------------------------

    def get(self, found: Found) -> str:
        """The canonical text, as LXC prints it: items of a list one a line. Raises ValueError where LXC has none."""
        row = found.row
        if row.shape in (INCLUDE, REMOVED):
            raise ValueError("has no value that could be read")
        if row.shape is GROUP:
            if row.name != "lxc.net":
                raise ValueError("has no value of its own")
            return "".join(f"{self.nets[index].get('net.type', '(none)')}\n" for index in sorted(self.nets))
        values = self.values
        if found.net is not None:
            index = self.last_net if found.net == LAST else found.net
            if index is None or index not in self.nets:
                raise ValueError(f"there is no interface {index}")
            values = self.nets[index]
            if row.needs and values.get("net.type") != row.needs:
                raise ValueError(f"needs lxc.net.{index}.type = {row.needs}")
        if row.shape is CGROUP:
            return self._get_cgroup(found)
        if row.shape is MAP:
            return self._get_map(found)
        if row.into in values:
            value = values[row.into]
        else:
            value = default(row)
            if value is None:
                return row.unset
        if row.shape is ONE or isinstance(value, tuple):
            return row.value.format(value) if value is not None else ""
        return joined(row, value)

    def _get_cgroup(self, found: Found) -> str:
        dialect = _dialect(found.row)
        if found.sub:
            return "".join(f"{value}\n" for _, value, _ in self._limits.get((dialect, found.sub), ()))
        head = found.row.name[:-1]
        return "".join(f"{head}{sub} = {value}\n" for kind, sub, value, _ in self.limits if kind == dialect)

    def _get_map(self, found: Found) -> str:
        row = found.row
        items: dict[str, Any] = self.values.get(row.into, {})
        if found.sub:
            if row.sub:
                row.sub.parse(found.sub)
            return row.value.format(items[found.sub]) if found.sub in items else ""
        return "".join(f"{row.name[:-1]}{sub} = {row.value.format(value)}\n" for sub, value in items.items())


def _dialect(row: Row) -> int:
    return 1 if row.name == "lxc.cgroup.*" else 2


def joined(row: Row, items: list[Any]) -> str:
    """The items of a list as LXC prints them."""
    show = row.value.format if row.shape is LIST else str  # WORDS and FOLD: a codec's value is the whole list
    texts = [show(item) for item in items]
    return row.joint.join(texts) if row.joint else "".join(f"{text}\n" for text in texts)


def default(row: Row) -> Any:
    """The model's default of a row's field."""
    from lxcpy.config import model  # dataclasses cost 7 ms that editing alone does not need

    value: Any = model.Config()
    if row.into.startswith("net."):
        value = model.Nic(0)
    for name in row.into.removeprefix("net.").split("."):
        value = getattr(value, name)
    return [] if value == () else value
