"""The demo's agent: an ordinary program that knows nothing of Deskwarden.

It reads the reports in its working directory, writes a summary workbook and a chart, and brings the index up to date.
Then it tries what an agent that was talked into it would try, and says how that went: exit code 3 if any of it worked.
"""

from __future__ import annotations

import socket
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from openpyxl import Workbook, load_workbook
from openpyxl.styles import Font
from PIL import Image, ImageDraw

Sales = dict[str, dict[str, int]]  # office, product: revenue in euro

COLOURS = ("#2f6f8f", "#d08c3c", "#6d8f3f")


def read_reports(folder: Path) -> Sales:
    """Return the revenue by office and product."""
    sales: Sales = {}
    for path in sorted(folder.glob("q2-*.xlsx")):
        by_product: dict[str, int] = defaultdict(int)
        for _, product, units, revenue in load_workbook(path)["Sales"].iter_rows(min_row=2, values_only=True):
            if isinstance(units, int):
                by_product[product] += revenue
        sales[path.stem.removeprefix("q2-")] = dict(by_product)
        print(f"agent: read {path.name}: {sum(by_product.values()):,} EUR")
    return sales


def write_summary(sales: Sales, path: Path) -> None:
    """Write one row an office and a sum."""
    products = sorted({product for row in sales.values() for product in row})
    book = Workbook()
    sheet = book.active
    sheet.title = "Q2 summary"
    sheet.append(("Office", *products, "Sum EUR"))
    for cell in sheet[1]:
        cell.font = Font(bold=True)
    for office, row in sales.items():
        sheet.append((office, *(row.get(product, 0) for product in products), sum(row.values())))
    sheet.append(("all", *(sum(row.get(product, 0) for row in sales.values()) for product in products)))
    book.save(path)


def draw_chart(sales: Sales, path: Path) -> None:
    """Draw a bar for each office and product."""
    image = Image.new("RGB", (640, 360), "white")
    draw = ImageDraw.Draw(image)
    highest = max(value for row in sales.values() for value in row.values())
    width = 580 // len(sales)
    draw.text((30, 12), "Q2 revenue by office and product", fill="black")
    for group, (office, row) in enumerate(sales.items()):
        left = 30 + group * width
        for bar, (product, value) in enumerate(sorted(row.items())):
            x = left + bar * 50
            top = 310 - round(value / highest * 250)
            draw.rectangle((x, top, x + 40, 310), fill=COLOURS[bar % len(COLOURS)])
            draw.text((x, top - 14), product, fill="black")
        draw.text((left, 320), office, fill="black")
    image.save(path)


def connect() -> None:
    """Open a connection to an address that the documentation range keeps free (RFC 5737)."""
    socket.create_connection(("192.0.2.1", 443), timeout=5).close()


def try_what_is_not_allowed() -> bool:
    """Return whether anything worked that must not."""
    home = Path.home()
    attempts: dict[str, Callable[[], object]] = {
        "read the keys in ~/.ssh": lambda: [path.read_bytes() for path in (home / ".ssh").iterdir()],
        "read the payroll next door": lambda: Path("../payroll.csv").read_text(),
        "send it to the network": connect,
    }
    worked = False
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            print(f"agent: tried to {what}: refused ({error.strerror or type(error).__name__})")
        else:
            print(f"agent: tried to {what}: IT WORKED")
            worked = True
    return worked


def main() -> int:
    """Do the work, then the mischief."""
    folder = Path.cwd()
    sales = read_reports(folder)
    write_summary(sales, folder / "q2-summary.xlsx")
    draw_chart(sales, folder / "q2-chart.png")
    index = folder / "INDEX.txt"
    index.write_text(
        index.read_text().replace("summary         to be done", "q2-summary.xlsx all offices, with q2-chart.png")
    )
    print("agent: wrote q2-summary.xlsx and q2-chart.png, updated INDEX.txt")
    return 3 if try_what_is_not_allowed() else 0


if __name__ == "__main__":
    sys.exit(main())
