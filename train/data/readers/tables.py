"""Tables -> (place, row) pairs: CSV and Parquet."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persona_bot.errors import UserError

MAX_CELL = 10_000_000  # characters; Python's own limit is too low for a long conversation


def read_csv(lines: io.TextIOBase, path: Path) -> Iterator[tuple[str, object]]:
    """Rows of a table with a line of column names, separated by commas, semicolons or tabs."""
    names = lines.readline()
    csv.field_size_limit(MAX_CELL)
    # strict: a quote that is never closed would take the rest of the file for one cell
    way: Any = {"delimiter": max(",;\t", key=names.count), "strict": True, "skipinitialspace": True}
    number = 1
    try:
        columns = [name.strip() for name in next(csv.reader([names], **way))]
        table = csv.DictReader(lines, columns, **way)
        for row in table:
            number = table.line_num + 1
            # a row that is longer than the line of names has a cell without a name
            yield f"line {number}", {k: v for k, v in row.items() if k is not None}
    except csv.Error as error:
        raise UserError(
            f"{path} is no CSV table after line {number} ({error}); save it again as CSV."
        ) from error


def read_parquet(path: Path) -> Iterator[tuple[str, object]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"{path} is a Parquet table, which needs the package datasets; run `pip install datasets`."
        ) from error
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(1_000):
            for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020 (goes on)
                yield f"row {number}", row
    except ArrowException as error:
        raise UserError(f"{path} is a damaged Parquet table; get it again.") from error
