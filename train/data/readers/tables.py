"""Tables -> (place, row) pairs: CSV and Parquet."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from persona_bot.errors import UserError

MAX_CELL = 10_000_000  # characters; Python's own limit is too low for a long conversation


def read_csv(lines: io.TextIOBase, path: Path) -> Iterator[tuple[str, object]]:
    """Rows of a table with a line of column names, separated by commas, semicolons or tabs."""
    names = lines.readline()
    csv.field_size_limit(MAX_CELL)
    delimiter = max(",;\t", key=names.count)
    columns = next(csv.reader([names], delimiter=delimiter))
    table = csv.DictReader(lines, columns, delimiter=delimiter)
    try:
        for row in table:
            # a row that is longer than the line of names has a cell without a name
            yield f"line {table.line_num + 1}", {k: v for k, v in row.items() if k is not None}
    except csv.Error as error:
        raise UserError(f"{path} is no CSV table ({error}); save it again as CSV.") from error


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
