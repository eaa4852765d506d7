"""One figure of a benchmark: what was measured, against what, and whether it meets its goal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """An upper bound: for the ratio, or with a unit for the value itself."""

    limit: float
    unit: str = "×"

    def __str__(self) -> str:
        return f"≤ {self.limit:g}{'' if self.unit == '×' else ' '}{self.unit}"

    def is_met(self, value: float, ratio: float | None) -> bool | None:
        """Return whether it is met; None when a ratio is wanted and there is nothing to compare with."""
        measured = ratio if self.unit == "×" else value
        return None if measured is None else measured <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        against: What it is compared with, in words; empty for a figure that stands alone.
        against_value: The other's figure, in the same unit.
        n: How many samples each median is of; 1 for a count.
    """

    name: str
    value: float
    unit: str
    n: int
    against: str = ""
    against_value: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """This figure by the other's."""
        return self.value / self.against_value if self.against_value else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return self.goal.is_met(self.value, self.ratio) if self.goal else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that later tools read; ratio, goal and met are worked out."""
        return asdict(self) | {
            "value": round(self.value, 3),
            "against_value": round(self.against_value, 3) if self.against_value is not None else None,
            "ratio": round(self.ratio, 3) if self.ratio is not None else None,
            "goal": str(self.goal) if self.goal else None,
            "met": self.met,
        }


_HEAD = ("name", "value", "against", "ratio", "goal", "met", "n")
_MET = {True: "yes", False: "NO", None: ""}


def _cells(row: Row) -> tuple[str, ...]:
    against = f"{row.against} {row.against_value:.2f}" if row.against_value is not None else row.against
    ratio = f"{row.ratio:.2f}×" if row.ratio is not None else ""
    return (
        row.name,
        f"{row.value:.2f} {row.unit}".rstrip(),
        against,
        ratio,
        str(row.goal) if row.goal else "",
        _MET[row.met],
        str(row.n),
    )


def table(rows: Iterable[Row]) -> list[str]:
    """Return the rows as lines of a Markdown table, in columns for a terminal too."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
