"""docs/benchmarks.md of the rows that `benchmarks.learning` found: tables, and what they mean."""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import class_incremental, cold, prequential, representatives
from benchmarks.gpu import EVENTS
from benchmarks.jobs import Row, Scale, Skip
from benchmarks.streams_at_hand import SHARED, SHIPPED, STREAMS

PACKAGES = ("numpy", "scipy", "numba", "torch", "scikit-learn", "river")
NO_DEEP_RIVER = (
    "deep-river is not among them: its newest version wants torch < 2.6 and pandas < 3, and the "
    "learner is pinned to newer ones, so both do not fit into one environment; scikit-learn's "
    "MLPClassifier stands for networks learned in steps."
)


OLDER = " (code before the last change)"


def text(rows: Sequence[Row], skipped: Sequence[Skip], scale: Scale, code: str) -> str:
    """The whole page; our rows that are not of `code` are marked."""
    rows = [
        replace(row, who=row.who + OLDER) if _is_ours(row) and not row.made.endswith(code) else row
        for row in rows
    ]
    parts: list[str] = [_head(rows, scale)]
    writers: dict[str, Callable[[list[Row]], str]] = {
        "prequential": _prequential,
        "class_incremental": _class_incremental,
        "representatives": _representatives,
        "cold": _cold,
        "gpu": _gpu,
    }
    for part, write in writers.items():
        if of_part := [row for row in rows if row.part == part]:
            parts.append(write(of_part))
    if skipped:
        lines = [f"- {one.what}: {one.why}" for one in skipped]
        parts.append("## Left out\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _head(rows: Sequence[Row], scale: Scale) -> str:
    made = sorted({row.made for row in rows})
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES if _has(name))
    return f"""# Benchmarks

Written by `make bench-learning ARGS=--write` on {time.strftime("%Y-%m-%d")}, not by hand. \
Python {platform.python_version()}, {packages}; {os.cpu_count()} cores, {_cpu()}. \
Code: {", ".join(made)}.

+- is the spread (standard deviation) over up to {scale.seeds} seeds; where there is none, one \
seed was run, or the method draws nothing. us/event: CPU microseconds an event, test and learning \
together, one thread, reading left out; the machine did a lot of other work at the same time, \
which costs caches: compare the figures with each other, and nothing below a factor of 1.5. MiB: \
what the process grew by at most, of one seed; empty: not measured. \
Everybody sees the same events in the same order and learns at the same steps; peers have their \
own defaults and were not tuned, ours are the \
product's defaults. Our learner was developed on the shared streams (the first table's), so the \
second table, streams that come with packages, judges it more fairly.
"""


def _is_ours(row: Row) -> bool:
    return row.who.startswith("streamlearn")


def _has(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:
        return False


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def shown(values: Iterable[float | None], digits: int = 3) -> str:
    """Mean +- spread, as .912 +- .001."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = _short(float(np.mean(known)), digits)
    if len(known) == 1:
        return mean
    return f"{mean} +- {_short(float(np.std(known)), digits)}"


def _short(value: float, digits: int) -> str:
    sign = "-" if round(value, digits) < 0 else ""
    return sign + f"{abs(value):.{digits}f}".removeprefix("0" if abs(value) < 1 else "")


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(rows + ["| " + " | ".join(line) + " |" for line in lines]) + "\n"


def grouped(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Setting to who to a row a seed."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row.setting][row.who].append(row)
    return found


def each(rows: Sequence[Row], figure: str) -> list[float | None]:
    """A figure of each seed."""
    return [row.figures.get(figure) for row in rows]


def _prequential(rows: list[Row]) -> str:
    by_setting = grouped(rows)
    parts = [
        "## Streams: tested, then learned",
        "Accuracy over all events from the very first one on. `step`: so many events are predicted "
        "before their labels are learned. Delayed: predicting the last label that was known then.",
        "",
        "### All steps, the whole stream",
        _by_step(by_setting),
        "### Beside others",
        f"`prefix`: accuracy on the first events, the same for everybody, where the slow ones "
        f"stop by default (--full lets them go on). {NO_DEEP_RIVER}",
        "",
    ]
    for title, names in (("Shared streams", SHARED), ("Streams that packages bring", SHIPPED)):
        for name, stream in names.items():
            setting = f"{name}, step {stream.steps[0]}"
            if len(by_setting.get(setting, {})) > 1:
                parts.append(_beside(setting, stream.says, title, by_setting[setting]))
    return "\n".join(parts)


def _by_step(by_setting: dict[str, dict[str, list[Row]]]) -> str:
    lines = []
    for name, stream in STREAMS.items():
        for step in sorted(stream.steps):
            by_who = by_setting.get(f"{name}, step {step}", {})
            ours = by_who.get(prequential.OURS) or by_who.get(prequential.OURS + OLDER)
            if not ours:
                continue
            older = OLDER if ours[0].who.endswith(OLDER) else ""
            base = [
                _short(each(ours, k)[0] or 0.0, 3) for k in ("no-change", "delayed", "majority")
            ]
            cost = 1e6 * sum(r.cpu_s for r in ours) / sum(r.events for r in ours)
            lines.append(
                [name + older, str(step), f"{ours[0].events:,}",
                 f"**{shown(each(ours, 'whole'))}**", *base, f"{cost:,.0f}"]
            )  # fmt: skip
    head = ["stream", "step", "events", "ours", "no-change", "delayed", "majority", "us/event"]
    return table(head, lines)


def _beside(setting: str, says: str, title: str, by_who: dict[str, list[Row]]) -> str:
    order = sorted(by_who.items(), key=lambda item: -float(np.mean([_prefix(r) for r in item[1]])))
    best = order[0][0]
    lines = []
    for who, rows in order:
        cost = 1e6 * sum(row.cpu_s for row in rows) / sum(row.events for row in rows)
        prefix = shown([row.figures["prefix"] for row in rows])
        lines.append(
            [who, f"**{prefix}**" if who == best else prefix, shown(each(rows, "whole")),
             f"{cost:,.0f}", shown([row.peak_mib for row in rows[:1]], 1)]
        )  # fmt: skip
    some = next(iter(by_who.values()))[0]
    first = f"first {int(some.notes['prefix']):,}"
    whole = f"all {max(row.events for rows in by_who.values() for row in rows):,}"
    head = f"**{setting}** ({title.lower()}): {says}\n\n"
    return head + table(["", first, whole, "us/event", "MiB"], lines)


def _prefix(row: Row) -> float:
    return row.figures["prefix"] or 0.0


def _class_incremental(rows: list[Row]) -> str:
    by_setting = grouped(rows)
    parts = [
        "## Classes one after the other: what lasts",
        "mnist_5k, one pass over 4,000 images, five tasks one after the other: two new classes "
        "each (classes), all images turned by 36 degrees more (rotated), all pixels permuted anew "
        "(permuted); nobody is told when. 1,000 others are asked for at the end, all classes "
        "competing. Forgetting: a task's accuracy when it ended minus its last one. The methods "
        "of `network alone` share one network (784-512-10, low-rank adapters of rank 8), one "
        "buffer (uniform, 20 images a class) and one rate; ours is the product's default. "
        "CPU-s: of one seed.",
        "",
    ]
    for scenario in class_incremental.SCENARIOS:
        if scenario not in by_setting:
            continue
        lines = []
        for who, some in by_setting[scenario].items():
            cost = f"{np.mean([row.cpu_s for row in some]):.0f}"
            readouts = ("serve ", "keep ") if "serve final" in some[0].figures else ("",)
            for readout in readouts:
                cells = [
                    shown(each(some, readout + name)) for name in ("final", "forgetting", "online")
                ]
                named = f"{who}, {readout.strip()}" if readout else who
                lines.append([named, *cells, cost])
        lines.sort(key=lambda line: line[1], reverse=True)
        parts += [f"### {scenario}", table(["", "final", "forgetting", "online", "CPU-s"], lines)]
    return "\n".join(parts)


def _representatives(rows: list[Row]) -> str:
    by_setting = grouped(rows)
    parts = [
        "## Representatives",
        "What is kept of one pass, and nothing else, trains each head; a fifth of the stream is "
        "the test. Recall: the sample that a held-out slice trusts.",
        "",
    ]
    for setting, by_who in by_setting.items():
        some = by_who["all"]
        if setting == representatives.ASKED:
            lines = []
            for start in ("prior", "nothing"):
                for n in representatives.LABELS:
                    name = f"{start}, {n} labels"
                    lines.append(
                        [start, str(n)]
                        + [shown(each(some, f"{name}: {how}")) for how in ("random", "suggested")]
                    )
            parts += [
                "### Which events to have labelled",
                "watch_imu, a new person, 100 events of whom so many are labelled; the rest is the "
                "test. Prior: everybody else's statistics.",
                "",
                table(["from", "labels", "random ones", "suggested ones"], lines),
            ]
            continue
        lines = [
            [how, *(shown(each(some, f"{how}: {head}")) for head in representatives.HEADS)]
            for how in ("uniform", "their members", "micro-clusters", "recall")
        ]
        parts += [f"**{setting}**", "", table(["kept", *representatives.HEADS], lines)]
    return "\n".join(parts)


def _cold(rows: list[Row]) -> str:
    lines = [
        [who, *(shown(each(some, f"{n} events")) for n in cold.AT)]
        for by_who in grouped(rows).values()
        for who, some in by_who.items()
    ]
    return "\n".join(
        [
            "## Cold start",
            "watch_imu, each person a new stream, labels known at once: accuracy over the first "
            "events, mean over people.",
            "",
            table(["", *(f"{n}" for n in cold.AT)], lines),
        ]
    )


def _gpu(rows: list[Row]) -> str:
    by_device: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_device[row.who].append(row)
    parts = [
        "## Inner loop: adaptations a second",
        f"An adaptation: one stream's 3 steps on {EVENTS} new and {EVENTS} replayed events, "
        "32-64-64-10, rank 2. "
        "`loop`: one stream after the other, autograd; `eager`: all in one call. On a CPU of one "
        "core's seconds, `cores` of wall clock on all, which other work disturbs. Off: largest "
        "difference of a weight from the loop's.",
        "",
    ]
    for device, some in by_device.items():
        some.sort(key=lambda row: int(row.setting.split()[0]))
        names = [name for name in some[0].figures if name != "off"]
        lines = [
            [row.setting.split()[0], *(f"{row.figures[name] or 0:,.0f}" for name in names),
             f"{row.figures['off']:.0e}"]
            for row in some
        ]  # fmt: skip
        parts += [f"**{device}**", "", table(["streams", *names, "off"], lines)]
    return "\n".join(parts)
