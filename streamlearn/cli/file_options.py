"""Flags of commands that read a file of events: the file, and what its columns mean."""

from typing import Annotated

import typer

File = Annotated[
    str,
    typer.Argument(
        help="CSV or JSON lines (also .gz), Parquet, npz, or a folder with a subfolder of PNG "
        "and JPEG files a label; - is a pipe.",
        show_default=False,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="COL",
        help="The column that holds the classes; an npz has them in y.",
        show_default=False,
    ),
]
StreamColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COL",
        help="The column that says whose event it is: each stream has a model of its own.",
        show_default=False,
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time", metavar="COL", help="The column that holds the events' times.", show_default=False
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(metavar="COL", help="A column to leave out.", show_default=False),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COL",
        help="A column to use though it would be left out: a counter, an id.",
        show_default=False,
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="COL",
        help="A column of paths to PNG or JPEG files, relative to the table's folder.",
        show_default=False,
    ),
]
Order = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER",
        help="Of a folder's images: name, time or shuffle:SEED [name].",
        show_default=False,
    ),
]
