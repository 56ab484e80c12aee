"""`textclf finetune`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from textclf import pretrained
from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.options import DataOptions, DatasetOpt, DeviceOpt, as_flags, given

_LEARNING = "Learning"
_MEMORY = "Speed and memory"


def finetune(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Hub id or folder of a pretrained model. Default: textclf-mini, which comes with textclf.",
            show_default=False,
        ),
    ] = None,
    dataset: DatasetOpt = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Hub id or folder of a tokenizer. Default: the model's own.", show_default=False),
    ] = None,
    allow_bin: Annotated[
        bool | None,
        typer.Option("--allow-bin", help="Open weights that are only in pickle format.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="A ready-made configuration, such as quickstart.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML or JSON with any knob.", show_default=False)
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Any knob. Repeatable.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The run folder. Default: one in the runs folder.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run of the same name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what a run would take: steps, time, memory.")] = False,
    *,
    data: DataOptions,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.py:CLASS",
            help="auto, own (or native), cls, mean, max, last or attention, or code of your own. Default: auto.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    head_hidden: Annotated[
        int | None,
        typer.Option(help="Numbers in a hidden layer of the head.", show_default=False, rich_help_panel=_LEARNING),
    ] = None,
    head_dropout: Annotated[
        float | None,
        typer.Option(
            help="Share dropped before each layer of the head.", show_default=False, rich_help_panel=_LEARNING
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="embeddings|N",
            help="Leave the embeddings, and the first N layers, as they are.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Rate of a layer as a share of the one's above it.", show_default=False, rich_help_panel=_LEARNING
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK",
            help="Train low-rank adapters of this rank, such as 16; merged in the end, kept in adapter/. "
            "Needs the extra lora.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help='Words around every text: "Classify: {text}".',
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="The linear probe alone: no fine-tuning (epochs 0).", rich_help_panel=_LEARNING),
    ] = False,
    no_baselines: Annotated[
        bool,
        typer.Option(
            "--no-baselines",
            help="Measure no simpler answers (most frequent label, TF-IDF, probe) beside the model.",
            rich_help_panel=_LEARNING,
        ),
    ] = False,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over train. Default: by its rows and labels, 3 to 15.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="Peak rate. Default: by the model's width.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Texts per optimizer step. Default: 32.", show_default=False, rich_help_panel=_LEARNING),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(help="Share of the target spread over all labels.", show_default=False, rich_help_panel=_LEARNING),
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="none or balanced.", show_default=False, rich_help_panel=_LEARNING)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Picks the best checkpoint: accuracy, macro_f1, mcc, micro_f1, loss, ...  Default: accuracy, "
            "micro_f1 with several labels a text, question_accuracy of questions.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many evaluations without a better metric. Default: never.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of head, order and dropout. Default: 0.", show_default=False, rich_help_panel=_LEARNING),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            metavar="N",
            help="Make N runs with N seeds, from --seed on; their names end in -seed0, -seed1, ...",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            help="Be done within this time; of several seeds, all of them.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            help="Checkpoints that stay during the run, besides the best. Default: 2.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Tokens read of a text. Default: by the texts, up to 512.", show_default=False, rich_help_panel=_MEMORY
        ),
    ] = None,
    overflow: Annotated[
        str | None,
        typer.Option(
            help="Longer texts: truncate, head-tail or window. Default: truncate.",
            show_default=False,
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    micro_batch_size: Annotated[
        int | None, typer.Option(help="Texts per forward pass.", show_default=False, rich_help_panel=_MEMORY)
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing", help="Less memory, more time.", show_default=False, rich_help_panel=_MEMORY
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, bf16, fp16 or fp32.", show_default=False, rich_help_panel=_MEMORY)
    ] = None,
    device: DeviceOpt = None,
) -> None:
    """Fine-tune a pretrained model on labelled text."""
    from textclf import presets
    from textclf.config import assignment, build, by_field
    from textclf.errors import UsageError

    of_fine_tuning = {
        "--epochs": epochs, "--learning-rate": learning_rate, "--layer-decay": layer_decay, "--freeze": freeze,
        "--lora": lora, "--patience": patience,
    }  # fmt: skip
    for flag, asked in of_fine_tuning.items():
        if fast and asked is not None:
            raise UsageError(f"--fast does not fine-tune, so {flag} says nothing", hint="give one of the two")
    flags = {
        "name": model, "tokenizer": tokenizer, "allow_bin": allow_bin, "dataset": dataset, **data,
        "overflow": overflow,
        "head": head, "head_hidden": head_hidden, "head_dropout": head_dropout, "freeze": freeze, "lora": lora,
        "layer_decay": layer_decay, "prompt": prompt, "baselines": False if no_baselines else None,
        "epochs": 0.0 if fast else epochs,
        "learning_rate": learning_rate, "batch_size": batch_size, "label_smoothing": label_smoothing,
        "class_weights": class_weights, "metric": metric, "patience": patience, "seed": seed,
        "max_minutes": max_minutes, "keep": keep, "max_length": max_length, "micro_batch_size": micro_batch_size,
        "gradient_checkpointing": gradient_checkpointing, "precision": precision, "device": device,
    }  # fmt: skip
    layers: list[dict[str, Any]] = [
        presets.load(preset) if preset else {},
        presets.read_config_file(config) if config else {},
        by_field({name: value for name, value in flags.items() if value is not None}),
        *(assignment(text) for text in sets or []),
    ]
    request = build(*layers)
    if dry_run:
        _estimate(request, seeds)
    elif seeds is not None:
        _finetune_seeds(request, seeds, out=out, overwrite=overwrite)
    else:
        same_data = given(preset=preset, config=config, dataset=dataset, **data)
        repeated = [word for text in sets or [] for word in ("--set", text)]
        _finetune(request, out=out, overwrite=overwrite, same_data=[*as_flags(same_data), *repeated])


def _estimate(request: Any, seeds: int | None) -> None:
    from dataclasses import asdict

    from textclf.cli.progress import EventDisplay
    from textclf.cli.render import show_estimate
    from textclf.config import check_complete

    check_complete(request)
    from textclf.training.estimate import estimate

    with EventDisplay() as display:
        expected = estimate(request, seeds=seeds or 1, on_event=display)
    if terminal.settings.json:
        terminal.show_json(asdict(expected))
    else:
        show_estimate(expected)


def _finetune(request: Any, *, out: Path | None, overwrite: bool, same_data: list[str]) -> None:
    from textclf.cli.progress import EventDisplay
    from textclf.cli.render import baselines_table, confusions_table, history_table, metrics_table
    from textclf.config import check_complete

    check_complete(request)  # before torch is imported, which takes seconds
    from textclf.artifact.folder import read
    from textclf.metrics import Confusion, metrics_of
    from textclf.training.finetuning import finetune as run_finetune

    with EventDisplay() as display:
        run = run_finetune(config=request, out=out, overwrite=overwrite, on_event=display)
    if terminal.settings.json:
        document = {
            key: run.document.get(key)
            for key in (
                "dataset",
                "model",
                "steps",
                "step",
                "best_step",
                "share",
                "stopped_early",
                "seconds",
                "metrics",
                "baselines",
                "notes",
            )
        }
        terminal.show_json({"run": run.name, "folder": str(run.folder), "artifact": str(run.model_folder), **document})
        return
    terminal.out().print(metrics_table(run.metrics))
    if run.document.get("baselines"):
        terminal.out().print(baselines_table(run.document["baselines"], run.metrics, run.document["seconds"]))
    artifact = read(run.model_folder)
    course = history_table(run.history, metrics_of(artifact.label_set).HEADLINE[0])
    if course is not None:
        terminal.show(course)
    if artifact.facts is not None and artifact.facts.confusions:
        terminal.show(confusions_table([Confusion(**one) for one in artifact.facts.confusions]))
    reference = shlex.quote(run.name if out is None else str(run.folder))
    terminal.say(f"model: {run.model_folder}")
    terminal.say("next:")
    asked = {
        "text": 'echo "a text to classify"',
        "pair": r'printf "one text\tanother text\n"',
    }.get(artifact.form, """echo '{"question": "What is 2 + 2?", "choices": ["3", "4"]}'""")
    for command in (
        f"{asked} | textclf predict {reference}",
        f"textclf eval {reference}",
        f"textclf report {reference}",
        f"textclf push {reference} OWNER/NAME",
    ):
        terminal.say(f"  {command}")
    if request.model.name == pretrained.NAME:
        terminal.say(_what_a_larger_model_adds())
        terminal.say(f"  {shlex.join(['textclf', 'finetune', '--model', pretrained.BASE, *same_data])}")


def _finetune_seeds(request: Any, seeds: int, *, out: Path | None, overwrite: bool) -> None:
    from textclf.cli.progress import EventDisplay
    from textclf.cli.render import seeds_document, seeds_table
    from textclf.config import check_complete

    check_complete(request)
    from textclf.training.seeds import finetune_seeds

    with EventDisplay() as display:
        group = finetune_seeds(config=request, seeds=seeds, out=out, overwrite=overwrite, on_event=display)
    if terminal.settings.json:
        terminal.show_json(seeds_document(group))
        return
    terminal.out().print(seeds_table(group))
    reference = shlex.quote(group.name if out is None else str(group.folder))
    terminal.say(f"{reference} stands for its best run, {group.best.name}, where one model is asked for:")
    for command in ("predict", "eval", "report"):
        terminal.say(f"  textclf {command} {reference}")
    terminal.say(f"  textclf push {reference} OWNER/NAME")
    terminal.say("and for all of its runs beside another:")
    terminal.say(f"  textclf compare {reference} OTHER")


def _what_a_larger_model_adds() -> str:
    points = ", ".join(f"{name} {added:+.1f}" for name, added in pretrained.GAINS.items())
    return (
        f"a larger model may know more: the one that {pretrained.NAME} was made from (91 MB, from the Hub) had more "
        f"points of test accuracy on our data ({points}; -8 and -16: so many texts of each label), in about "
        f"{pretrained.TIMES_SLOWER:g} times the time; "
        "to try it on yours:"
    )


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, name="finetune", example="textclf finetune --dataset tickets.csv")(finetune)
