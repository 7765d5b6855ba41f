"""Plot: accuracy over time beside its baselines, with drifts and new classes marked.

In: a Timeline, and classes over time where they were asked for. Out: a picture file. matplotlib
is needed here and nowhere else.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from streamlearn.errors import InputError
from streamlearn.evaluation.classes_over_time import ClassesOverTime
from streamlearn.evaluation.timeline import MAJORITY, NO_CHANGE, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSTALL = "pip install 'streamlearn[plot]'"
PEERS = ("#e07b39", "#8e7cc3", "#45818e", "#a64d79", "#7f9f3f", "#c9a227", "#5b5b5b", "#b5651d")
STYLES = {NO_CHANGE: ("#b0895b", ":"), MAJORITY: ("#999999", "-.")}
OURS, DRIFT, CLASS = "#1f5fa8", "#c0392b", "#3a8f4d"
NAMED = 2  # new classes that are named at one place
# For names in scripts that matplotlib's own font lacks, the ones of these that are installed.
FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "WenQuanYi Zen Hei", "Hiragino Sans", "PingFang SC", "Yu Gothic", "Microsoft YaHei",
    "Malgun Gothic",
)  # fmt: skip


def check_plot(path: Path) -> None:
    """InputError where the file could not be written at the end of a long run."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise InputError(f"--plot needs matplotlib: {INSTALL}") from error
    known = matplotlib.figure.Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise InputError(f"--plot {path}: end the name with one of {', '.join(sorted(known))}")
    if not path.resolve().parent.is_dir():
        raise InputError(
            f"--plot {path}: there is no folder {path.resolve().parent}; make it first"
        )


def draw(path: Path, timeline: Timeline, classes: ClassesOverTime | None, *, title: str) -> None:
    """Write the picture; its kind follows from the file's name."""
    from matplotlib import font_manager, rc_context, rcParams

    installed = set(font_manager.fontManager.get_font_names())
    fonts = [*rcParams["font.family"], *(font for font in FONTS if font in installed)]
    with rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # then a box stands there
        _draw(path, timeline, classes, title)


def _draw(path: Path, timeline: Timeline, classes: ClassesOverTime | None, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    peers = iter(PEERS)
    for name, (events, accuracy) in timeline.curves().items():
        ours = name == timeline.readout
        color, line = STYLES.get(name) or (OURS if ours else next(peers, None), "-")
        label = f"accuracy ({name})" if ours else name
        axes.plot(
            events, accuracy, line, color=color, label=label, zorder=3 if ours else 2,
            linewidth=2.0 if ours else 1.2,
        )  # fmt: skip
    if classes is not None and classes.looks and timeline.n_streams == 1:
        events_, _, serve, keep = zip(*classes.looks, strict=True)
        axes.plot(events_, serve, "o--", ms=3, lw=1, color="#7a4fa0", label="all classes, serve")
        axes.plot(events_, keep, "s--", ms=3, lw=1, color="#d98e04", label="all classes, keep")
    _mark(axes, timeline)
    order = "labelled events" if timeline.n_streams < 2 else "labelled events, by their times"
    axes.set(xlabel=order, ylabel="share right, sliding", ylim=(0, 1.02))
    axes.set_title(title, parse_math=False)  # names hold dollars, too
    axes.set_xlim(0, max(timeline.n, 1))
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --plot") from error


def _mark(axes: "Axes", timeline: Timeline) -> None:
    for k, mark in enumerate(timeline.drifts):
        axes.axvline(
            mark.event, color=DRIFT, alpha=0.5, lw=1, zorder=1, label=None if k else "drift"
        )
    new = timeline.new_classes
    axes.plot(
        [mark.event for mark in new], [0.0] * len(new), "^", ms=6, label="new class", color=CLASS,
        clip_on=False, zorder=4,
    )  # fmt: skip
    for k, (event, names) in enumerate(_together(timeline)):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        said = ", ".join(name[:16] for name in names[:NAMED]) + more
        right = event > 0.75 * timeline.n  # there is no room to the right of it
        axes.annotate(
            said, (event, 0.04 + 0.045 * (k % 3)), xytext=(-4 if right else 4, 0),
            textcoords="offset points", ha="right" if right else "left", va="center",
            fontsize="x-small", color=CLASS, zorder=5, parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )  # fmt: skip


def _together(timeline: Timeline) -> list[tuple[int, list[str]]]:
    """New classes that came so close that their names would lie on each other."""
    groups: list[tuple[int, list[str]]] = []
    for mark in timeline.new_classes:
        if groups and mark.event - groups[-1][0] < timeline.n / 12:
            groups[-1][1].append(mark.what)
        else:
            groups.append((mark.event, [mark.what]))
    return groups
