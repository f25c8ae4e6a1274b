"""Owns the FlatBuffers format, followed by hand: tables and vectors of a file, never a byte outside it.

A file may come from anywhere: every offset is doubted. What leads out of the file raises `DamagedError`.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator


class DamagedError(ValueError):
    """An offset or a length leads out of the file."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a file.

    Attributes:
        data: The whole file.
        at: Where the table begins.
    """

    data: bytes
    at: int

    def scalar(self, number: int, kind: str, default: int = 0) -> int:
        """Returns a number.

        Args:
            number: Of the field, as in the schema.
            kind: Letter of the module `struct`, as "I".
            default: If the field is absent.
        """
        offset = self._offset(number)
        return _read(self.data, self.at + offset, kind) if offset else default

    def table(self, number: int) -> Table | None:
        """Returns a field that is a table; None if it is absent."""
        at = self._target(number)
        return None if at is None else _checked(Table(self.data, at))

    def tables(self, number: int) -> Iterator[Table]:
        """Yields the tables of a vector; none if it is absent."""
        at = self._target(number)
        if at is not None:
            for place in range(at + 4, self._end(at, 4), 4):
                yield _checked(Table(self.data, _follow(self.data, place)))

    def numbers(self, number: int, kind: str) -> tuple:
        """Returns the values of a vector; none if it is absent."""
        at = self._target(number)
        if at is None:
            return ()
        end = self._end(at, struct.calcsize(f"<{kind}"))
        return tuple(value for (value,) in struct.iter_unpack(f"<{kind}", self.data[at + 4 : end]))

    def size(self, number: int, width: int = 1) -> int:
        """Returns how many values of so many bytes a vector has; 0 if it is absent."""
        at = self._target(number)
        return 0 if at is None else (self._end(at, width) - at - 4) // width

    def bytes(self, number: int) -> bytes | None:
        """Returns a field that is a string or a vector of bytes; None if it is absent."""
        at = self._target(number)
        return None if at is None else bytes(self.data[at + 4 : self._end(at, 1)])

    def _end(self, vector: int, width: int) -> int:
        """Returns where a vector ends."""
        end = vector + 4 + width * _read(self.data, vector, "I")
        if end > len(self.data):
            raise DamagedError(f"a vector at {vector} ends at {end}")
        return end

    def _target(self, number: int) -> int | None:
        offset = self._offset(number)
        return _follow(self.data, self.at + offset) if offset else None

    def _offset(self, number: int) -> int:
        """Returns where in the table a field lies; 0 if it is absent."""
        directory = self.at - _read(self.data, self.at, "i")
        place = 4 + 2 * number
        return _read(self.data, directory + place, "H") if place < _read(self.data, directory, "H") else 0


def root(data: bytes) -> Table:
    """Returns the table that a file consists of.

    Raises:
        DamagedError: If there is none.
    """
    return _checked(Table(data, _follow(data, 0)))


def _checked(table: Table) -> Table:
    """Checks that the directory of a table and all fields lie within the file."""
    data, at = table.data, table.at
    directory = at - _read(data, at, "i")
    size, length = _read(data, directory, "H"), _read(data, directory + 2, "H")
    if size < 4 or size % 2 or length < 4 or directory + size > len(data) or at + length > len(data):
        raise DamagedError(f"a table at {at}")
    if any(_read(data, directory + place, "H") >= length for place in range(4, size, 2)):
        raise DamagedError(f"a field of the table at {at}")
    return table


def _follow(data: bytes, place: int) -> int:
    """Goes where the offset at a place leads."""
    target = place + _read(data, place, "I")
    if target + 4 > len(data):
        raise DamagedError(f"the offset at {place} leads to {target}")
    return target


def _read(data: bytes, place: int, kind: str) -> int:
    if place < 0:
        raise DamagedError(f"the place {place}")
    try:
        return struct.unpack_from(f"<{kind}", data, place)[0]
    except struct.error:
        raise DamagedError(f"the place {place}") from None
