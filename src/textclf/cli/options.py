"""Options that several commands share: one spelling, one help text each."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from textclf.cli.command import Together

_PANEL = "Data"


def _names(value: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in value.split(",")) if value is not None else None


DatasetOpt = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", metavar="DATA", rich_help_panel=_PANEL,
        help="Catalog name (banking77, tweet_eval/hate, scientific, ...), file, folder, or Hub id owner/name[:config].",
    ),
]  # fmt: skip
TextColumnOpt = Annotated[
    str | None,
    typer.Option(
        "--text-column", metavar="NAME", rich_help_panel=_PANEL, help="Column of the texts. Else found by name."
    ),
]
TextPairColumnOpt = Annotated[
    str | None,
    typer.Option(
        "--text-pair-column", metavar="NAME", rich_help_panel=_PANEL,
        help="Column of the second text, where a row is a pair. Found where names leave no doubt.",
    ),
]  # fmt: skip
FormOpt = Annotated[
    str | None,
    typer.Option(
        "--form", metavar="FORM", rich_help_panel=_PANEL,
        help="Questions with choices: multiclass (the answer is a letter) or binary (each choice, correct or not).",
    ),
]  # fmt: skip
ShuffleChoicesOpt = Annotated[
    bool | None,
    typer.Option(
        "--shuffle-choices", rich_help_panel=_PANEL, show_default=False,
        help="Put the choices of training questions into a random order (multiclass).",
    ),
]  # fmt: skip
LabelColumnOpt = Annotated[
    str | None,
    typer.Option(
        "--label-column", metavar="NAME", rich_help_panel=_PANEL, help="Column of the labels. Else found by name."
    ),
]
LabelDelimiterOpt = Annotated[
    str | None,
    typer.Option(
        "--label-delimiter", metavar="TEXT", rich_help_panel=_PANEL,
        help="A row has any number of labels, with this between them, as | in late|broken.",
    ),
]  # fmt: skip
LabelColumnsOpt = Annotated[
    str | None,
    typer.Option(
        "--label-columns", metavar="A,B,...", rich_help_panel=_PANEL, callback=_names,
        help="A row has any number of labels: columns of 0 and 1, one for each label.",
    ),
]  # fmt: skip
ColumnsOpt = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="A,B,...", rich_help_panel=_PANEL, callback=_names,
        help="Names of all columns of a csv or tsv without a header line.",
    ),
]  # fmt: skip
ValidationSizeOpt = Annotated[
    float | None,
    typer.Option(
        "--validation-size", metavar="SIZE", rich_help_panel=_PANEL,
        help="Cut from train if there is no validation split: a share below 1, or rows. Default: 0.1.",
    ),
]  # fmt: skip
TestSizeOpt = Annotated[
    float | None,
    typer.Option(
        "--test-size", metavar="SIZE", rich_help_panel=_PANEL,
        help="Cut from train if there is no test split: a share below 1, or rows; 0 goes without. Default: 0.1.",
    ),
]  # fmt: skip
MinLabelCountOpt = Annotated[
    int | None,
    typer.Option(
        "--min-label-count", metavar="N", rich_help_panel=_PANEL, help="Drop labels with fewer rows than this in train."
    ),
]
OtherLabelOpt = Annotated[
    str | None,
    typer.Option(
        "--other-label", metavar="NAME", rich_help_panel=_PANEL,
        help="Gather labels rarer than --min-label-count under this name instead.",
    ),
]  # fmt: skip
BalanceOpt = Annotated[
    str | None,
    typer.Option(
        "--balance", metavar="N|min", rich_help_panel=_PANEL,
        help="Keep at most N rows of each label in train, at random; min: as many as the rarest has.",
    ),
]  # fmt: skip
MaxRowsOpt = Annotated[
    int | None,
    typer.Option(
        "--max-rows", metavar="N", rich_help_panel=_PANEL, help="Take at most this many rows of each split, at random."
    ),
]
CorrectionsOpt = Annotated[
    str | None,
    typer.Option(
        "--corrections", metavar="FILE", rich_help_panel=_PANEL,
        help="Apply the reviewed rows of a csv that textclf audit wrote.",
    ),
]  # fmt: skip
DropLeaksOpt = Annotated[
    str | None,
    typer.Option(
        "--drop-leaks", metavar="train|test", rich_help_panel=_PANEL,
        help="Where texts of train are in validation or test too, drop them there or here.",
    ),
]  # fmt: skip
ThoroughOpt = Annotated[
    bool | None,
    typer.Option(
        "--thorough", rich_help_panel=_PANEL, show_default=False,
        help="Look for near copies in data of any size, and whether the splits can be told apart.",
    ),
]  # fmt: skip


_COLUMNS = {
    "text_column": TextColumnOpt,
    "text_pair_column": TextPairColumnOpt,
    "label_column": LabelColumnOpt,
    "label_delimiter": LabelDelimiterOpt,
    "label_columns": LabelColumnsOpt,
    "columns": ColumnsOpt,
}
ColumnOptions = Annotated[dict[str, Any], Together(_COLUMNS)]
"""Where texts and labels are in a data set."""
DataOptions = Annotated[
    dict[str, Any],
    Together(
        {
            **_COLUMNS,
            "validation_size": ValidationSizeOpt,
            "test_size": TestSizeOpt,
            "min_label_count": MinLabelCountOpt,
            "other_label": OtherLabelOpt,
            "balance": BalanceOpt,
            "max_rows": MaxRowsOpt,
            "form": FormOpt,
            "shuffle_choices": ShuffleChoicesOpt,
            "corrections": CorrectionsOpt,
            "drop_leaks": DropLeaksOpt,
            "thorough": ThoroughOpt,
        }
    ),
]
"""How a data set is prepared."""
MeasuredDatasetOpt = Annotated[
    str | None,
    typer.Option("--dataset", "-d", help="Another data set with the same label names.", show_default=False),
]
MeasuredSplitOpt = Annotated[
    str | None,
    typer.Option(help="train, validation or test. Default: test where there is one.", show_default=False),
]
DeviceOpt = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="auto, cpu, mps, cuda or cuda:N.  [default: auto]", show_default=False
    ),
]
RuntimeOpt = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="auto, onnx, int8, torch, bf16 or openvino: see docs/how-to/predict-fast.md.  [default: auto]",
        show_default=False,
    ),
]


HeadCodeOpt = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="FILE.py:CLASS",
        help="Run this code, which the model's head was trained with. See docs/how-to/own-head.md.",
        show_default=False,
    ),
]
AbstainBelowOpt = Annotated[
    float | None,
    typer.Option(
        "--abstain-below", min=0, max=1, metavar="SCORE", show_default=False,
        help="Give no answer whose score is lower.",
    ),
]  # fmt: skip
TargetAccuracyOpt = Annotated[
    float | None,
    typer.Option(
        "--target-accuracy", min=0, max=1, metavar="SHARE", show_default=False,
        help="Abstain as often as it took for this share of the answers to be right on validation.",
    ),
]  # fmt: skip
OutOfScopeOpt = Annotated[
    float | None,
    typer.Option(
        "--out-of-scope", min=0, max=1, metavar="SHARE", show_default=False,
        help="Give no answer to texts that look less like those of training than all but this share of validation.",
    ),
]  # fmt: skip


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, as a section for `config.build`."""
    return {name: value for name, value in options.items() if value is not None}


def as_flags(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line, for the next command to type."""
    words = []
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(",".join(value) if isinstance(value, tuple) else f"{value}")
    return words
