"""Statistics of parts of the rows that add up: what those of one model and of two have in common."""

from __future__ import annotations

import copy
from typing import Any, Self

from finetune_eval import _checks
from finetune_eval.evaluation._reading import readings_of


class Additive:
    """Counts of rows with the labels and settings that they were counted by.

    A subclass sets `labels`, `_counts` and `_read`, and says what its settings are.
    """

    labels: tuple[str, ...]
    _counts: Any  # what the rows add up to: has `n`, `add` and `to_bytes`
    _read: dict[str, int]  # each different label of the rows, as JSON, and its class
    _alike = ""  # what two of them must have in common, in words

    @property
    def n(self) -> int:
        """How many rows were counted."""
        return int(self._counts.n)

    def settings(self) -> dict[str, Any]:
        """Return what the rows are counted by, as JSON data."""
        raise NotImplementedError

    def _counts_of(self, data: bytes) -> tuple[Any, dict[str, Any]]:
        """Return counts that were written as bytes, and what was kept beside them."""
        raise NotImplementedError

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, type(self)):
            return NotImplemented
        made = copy.deepcopy(self)
        made.add(other)
        return made

    def add(self, other: Self) -> None:
        """Add the rows of other statistics to these.

        Raises:
            ValueError: They are of other classes or settings.
        """
        _checks.instance("other", other, type(self), f"`{type(self).__name__}.of`")
        if self.settings() != other.settings():
            raise ValueError(
                f"`other` has other settings, {other.settings()}; these are {self.settings()}. Statistics "
                f"can be added where both have the same {self._alike}."
            )
        self._add(other._counts, other._read, "")

    def to_bytes(self) -> bytes:
        """Return everything as bytes with a checksum, to be stored or sent; nothing is pickled."""
        found: bytes = self._counts.to_bytes({**self.settings(), "read": self._read})
        return found

    def add_bytes(self, data: bytes, *, source: str = "") -> None:
        """Add what `to_bytes` returned.

        Args:
            data: The bytes.
            source: What the rows are of, for errors.

        Raises:
            ValueError: It is damaged, or of other classes or settings.
        """
        counts, about = self._counts_of(data)
        read = about.pop("read")
        if about != self.settings():
            raise ValueError(f"these statistics have other settings, {about}, than {self.settings()}")
        self._add(counts, read, source)

    def _add(self, counts: Any, read: dict[str, int], source: str) -> None:
        """Add counted rows and how their labels were read; nothing changes where either does not fit."""
        together = readings_of(self._read, read, self.labels, source)
        self._counts.add(counts)
        self._read = together
