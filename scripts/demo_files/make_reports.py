"""Make the folder that the demo works on: `make_reports.py DIRECTORY`.

Three branch offices' sales of the second quarter as .xlsx, an index as text, and beside the folder a file that is
nobody's business but the owner's. The figures are the same at each run.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from openpyxl import Workbook
from openpyxl.styles import Font

OFFICES = {"north": 11, "south": 7, "west": 9}
PRODUCTS = ("Licences", "Support", "Training")
MONTHS = ("April", "May", "June")

INDEX = """\
Q2 reports
==========
q2-north.xlsx   sales of the northern office
q2-south.xlsx   sales of the southern office
q2-west.xlsx    sales of the western office
summary         to be done
"""


def write_office(path: Path, office: str, scale: int) -> None:
    """Write one office's workbook: a row for each month and product, and a sum."""
    numbers = random.Random(office)
    book = Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet.append(("Month", "Product", "Units", "Revenue EUR"))
    for cell in sheet[1]:
        cell.font = Font(bold=True)
    for month in MONTHS:
        for product in PRODUCTS:
            units = numbers.randint(scale, scale * 6)
            sheet.append((month, product, units, units * numbers.choice((120, 180, 240))))
    sheet.append(("", "Sum", "", f"=SUM(D2:D{sheet.max_row})"))
    book.save(path)


def main() -> int:
    """Write `finance/q2-reports/` and `finance/payroll.csv` below the directory named on the command line."""
    finance = Path(sys.argv[1]) / "finance"
    reports = finance / "q2-reports"
    reports.mkdir(parents=True)
    for office, scale in OFFICES.items():
        write_office(reports / f"q2-{office}.xlsx", office, scale)
    (reports / "INDEX.txt").write_text(INDEX)
    (finance / "payroll.csv").write_text("name,salary\nA. Example,52000\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
