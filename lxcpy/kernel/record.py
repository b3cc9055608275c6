"""typing.NamedTuple for modules that must load fast: importing typing costs 9 ms with Python 3.11, this 0.1.

To the type checker it is typing.NamedTuple itself. At run time: fields by name and index, defaults, keyword arguments,
`_fields`, `_replace`, `_asdict`, equality and hash of a tuple.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from _operator import itemgetter

    class _Maker(type):
        def __new__(maker, name, bases, space):
            fields = tuple(space.get("__annotations__", ()))
            defaults = {field: space.pop(field) for field in fields if field in space}
            for index, field in enumerate(fields):
                space[field] = property(itemgetter(index))
            space.update(_fields=fields, _field_defaults=defaults, __match_args__=fields, __slots__=())
            return super().__new__(maker, name, (_Fields,) if fields else bases, space)

    class _Fields(tuple):
        __slots__ = ()
        _fields: tuple[str, ...] = ()

        def __new__(cls, *values, **named):
            fields = cls._fields
            if len(values) != len(fields) or named:
                if len(values) > len(fields):
                    raise TypeError(f"{cls.__name__} takes {len(fields)} values, not {len(values)}")
                rest = [named.pop(field, cls._field_defaults.get(field, _Fields)) for field in fields[len(values) :]]
                if named or _Fields in rest:
                    late = fields[len(values) :]
                    wrong = list(named) or [late[index] for index, value in enumerate(rest) if value is _Fields]
                    raise TypeError(f"{cls.__name__}: {'unknown or double' if named else 'missing'} {', '.join(wrong)}")
                values += tuple(rest)
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            return type(self)(**{**self._asdict(), **named})

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)

    NamedTuple = _Maker("NamedTuple", (), {})
