"""`streamlearn evaluate`, shown: figures beside what costs nothing, who is trusted, what lasts."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from streamlearn.evaluation import ClassesOverTime, Evaluation
    from streamlearn.evaluation.prequential_run import StreamResult
    from streamlearn.sources import Inferred

BAR = 24  # characters of a full bar
STREAMS_SHOWN = 12
CLASSES_SHOWN = 12


def show(result: "Evaluation", inferred: "Inferred", console: Console) -> None:
    """For people: what was inferred, the figures beside their baselines, who carries them."""
    from streamlearn.sources.kinds import Kind

    for line in inferred.lines():
        console.print(line, style="dim", markup=False, highlight=False)
    if inferred.of_kind(Kind.TEXT):
        console.print("texts are learned from word by word: the experts called text", style="dim")
    console.print()
    console.print(_figures(result))
    if result.peers:
        console.print(_peers(result))
    if result.classes_over_time is not None:
        console.print(_classes_over_time(result.classes_over_time))
    console.print(_experts(result))
    if len(result.streams) > 1:
        console.print(_streams(result))
    else:
        console.print(_rehearses(result.streams[0]), style="dim", highlight=False)
    classes = ", ".join(str(one) for one in result.classes[:CLASSES_SHOWN])
    more = len(result.classes) - CLASSES_SHOWN
    classes += f" and {more} more" if more > 0 else ""
    console.print(f"{len(result.classes)} classes: {classes}", markup=False, highlight=False)
    console.print(
        f"{result.n:,} of {result.events:,} events labelled; {result.seconds:.1f} s, "
        f"{result.events_per_s:,.0f} events/s; step {result.step}, seed {result.seed}",
        highlight=False,
    )


def _bar(share: float) -> str:
    return "█" * round(BAR * min(max(share, 0.0), 1.0))


def _figures(result: "Evaluation") -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    better = result.accuracy >= max(result.no_change_delayed, result.majority)
    style = "bold green" if better else "bold red"
    shown = (
        ("accuracy", result.accuracy, _note(result), style),
        ("no-change", result.no_change, "the label just before", ""),
        ("  delayed", result.no_change_delayed, "the last one known to the model", ""),
        ("majority", result.majority, "the most frequent label so far", ""),
    )
    for name, value, note, look in shown:
        table.add_row(name, f"{value:.3f}", _bar(value), note, style=look)
    table.add_row("kappa", f"{result.kappa:.3f}", "", "above chance; 1 is perfect")
    table.add_row("kappa temporal", f"{result.kappa_temporal:.3f}", "", "above no-change")
    return table


def _note(result: "Evaluation") -> str:
    if result.readout == "keep":
        return "test, then learn; by keep"
    return "test, then learn"


def _peers(result: "Evaluation") -> Table:
    table = Table(
        box=None, pad_edge=False, title="\nothers on the same events", title_justify="left",
        title_style="", show_header=False,
    )  # fmt: skip
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_column(style="dim", justify="right")
    for peer in result.peers:
        speed = f"{peer.events_per_s:,.0f} events/s"
        table.add_row(escape(peer.name), f"{peer.accuracy:.3f}", _bar(peer.accuracy), speed)
    return table


def _classes_over_time(found: "ClassesOverTime") -> Table:
    title = f"\n{found.n_classes} classes over time, {found.n_held_out} events held out"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="")
    for name, justify in (("", "left"), ("at the end", "right"), ("", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("backward transfer", justify="right")
    table.add_column("forgotten", justify="right")
    for name, memory in (("serve", found.serve), ("keep", found.keep)):
        change = (memory.backward_transfer, memory.forgetting)
        shown = ("-" if value is None else f"{value:+.3f}" for value in change)
        table.add_row(name, f"{memory.final:.3f}", _bar(memory.final), *shown)
    return table


def _experts(result: "Evaluation") -> Table:
    table = Table(
        box=None, pad_edge=False, title="\nwho is trusted now", title_justify="left",
        title_style="", show_header=False,
    )  # fmt: skip
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for name, weight in sorted(result.experts.items(), key=lambda item: -item[1]):
        table.add_row(escape(name), f"{weight:.2f}", _bar(weight))
    return table


def _rehearses(one: "StreamResult") -> str:
    shown = {"microclusters": "micro-clusters", "uniform": "a uniform sample"}
    recalls = [f"{shown[n]} {r:.2f}" for n, r in one.recalls.items() if r is not None]
    beside = f"; recall of held-out events: {', '.join(recalls)}" if recalls else ""
    return f"its past is kept as {shown[one.rehearses]}{beside}"


def _streams(result: "Evaluation") -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(f"\n{len(result.streams)} streams", no_wrap=True)
    for title in ("events", "accuracy", "no-change", "majority"):
        table.add_column(f"\n{title}", justify="right")
    table.add_column("\ndrift")
    for one in result.streams[:STREAMS_SHOWN]:
        table.add_row(
            escape(one.stream),
            f"{one.n:,}",
            f"{one.accuracy:.3f}",
            f"{one.no_change:.3f}",
            f"{one.majority:.3f}",
            f"{one.drift}, {one.n_drifts} so far" if one.n_drifts else one.drift,
        )
    if len(result.streams) > STREAMS_SHOWN:
        table.add_row(f"and {len(result.streams) - STREAMS_SHOWN} more: --json has them all")
    return table
