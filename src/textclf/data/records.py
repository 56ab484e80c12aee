"""From a data file to its records: whole, or part by part in memory that does not grow with the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from textclf.data import columnar, delimited, json_rows
from textclf.data.files import DataFile, Records, translated
from textclf.errors import DataError


def read_records(file: DataFile, *, columns: tuple[str, ...] | None = None) -> Records:
    """Open one file. `columns` names the columns of a csv or tsv without a header line.

    Raises DataError (file, row or line, how to mend it) when the file is damaged or of another kind than its name says.
    """
    if columns is not None and file.format not in ("csv", "tsv"):
        raise DataError(
            f"{file.path}: column names were given, but a {file.format} file has its own",
            hint="leave --columns out; choose with --text-column and --label-column",
        )
    with translated(file):
        if file.format == "parquet":
            return columnar.read_parquet(file)
        if file.format == "arrow":
            return columnar.read_arrow(file)
        if file.format == "csv":
            return delimited.read_csv(file, columns)
        if file.format == "tsv":
            return delimited.read_tsv(file, columns)
        return json_rows.read_json(file)


def stream_records(file: DataFile, choose: Callable[[Records], tuple[str, ...]]) -> Iterator[Records]:
    """Some columns of a file in parts of some megabytes: csv, jsonl, parquet and arrow; other files in one part.

    choose: names the columns, given what is known at the start of the file; other columns may be missing later.
    Raises what `read_records` raises, when it gets there.
    """
    with translated(file):
        if file.format == "parquet":
            yield from columnar.stream_parquet(file, choose)
        elif file.format == "arrow":
            yield from columnar.stream_arrow(file, choose)
        elif file.format == "csv":
            yield from delimited.stream_csv(file, choose)
        elif file.format == "tsv":
            records = delimited.read_tsv(file, None)
            choose(records)
            yield records
        else:
            yield from json_rows.stream_json(file, choose)
