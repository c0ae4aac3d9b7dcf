"""What the gradient logs of runs say: a table for docs/losses/gradients.md and the curves beside it.

python docs/losses/gradients.py RUN [RUN …]          put the table into gradients.md, write gradients.png
python docs/losses/gradients.py --print RUN [RUN …]  show the table, write nothing

A run is the --output of `rarevox train … --config gradients`. It goes by its folder's name, under the name of its
dataset's folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from rarevox.pipeline.training.record.run_log import read_rows

PAGE = Path(__file__).with_name("gradients.md")
BEGIN, END = "<!-- table: written by gradients.py -->", "<!-- end of table -->"
HEAD = (
    "| dataset | run | measured | first : second term | cosine, median (10 to 90 %) | conflict | "
    "first third | last third | best Dice | cost of the log |"
)


class Run(NamedTuple):
    """The logs of one run."""

    dataset: str
    name: str
    rows: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    steps: list[dict[str, Any]]

    def column(self, key: str) -> np.ndarray:
        """A column of the measurements; NaN where a value is missing."""
        return np.array([row[key] for row in self.rows], dtype=float)  # None becomes NaN

    def ratio(self) -> np.ndarray:
        """|g first| / |g second| of each measurement, the terms unweighted."""
        norms = np.array(
            [[np.nan if v is None else v for v in row["norms"].values()] for row in self.rows], dtype=float
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return norms[:, 0] / norms[:, 1]


def read_run(folder: Path) -> Run:
    """The logs of a run folder.

    Raises:
        SystemExit: it holds no measurements.
    """
    logs = folder / "logs"
    rows = read_rows(logs / "gradients.jsonl")
    if not rows:
        sys.exit(f"{folder} holds no logs/gradients.jsonl; train it with --config gradients")
    config = yaml.safe_load((folder / "configs" / "train.yaml").read_text(encoding="utf-8"))
    dataset = Path(config["dataset_dir"]).name
    return Run(
        dataset, folder.resolve().name, rows, read_rows(logs / "validation.jsonl"), read_rows(logs / "train.jsonl")
    )


def conflict(cosines: np.ndarray) -> float:
    """The share of the measurements in which the terms work against each other, NaN where there are none."""
    known = cosines[np.isfinite(cosines)]
    return float((known < 0).mean()) if len(known) else np.nan


def cost(run: Run) -> float:
    """What the log adds to the training: median time of the measured steps over that of the others, less 1, spread
    over all steps. The first step is left out, as it warms up, and so are those after a break (a resumed run)."""
    measured = {row["iteration"] for row in run.rows}
    taken: dict[bool, list[float]] = {True: [], False: []}
    for before, step in zip(run.steps[1:], run.steps[2:], strict=False):
        if step["iteration"] == before["iteration"] + 1:
            taken[step["iteration"] in measured].append(step["seconds"] - before["seconds"])
    if not taken[True] or not taken[False] or np.median(taken[False]) <= 0:
        return np.nan
    share = len(taken[True]) / (len(taken[True]) + len(taken[False]))
    return float(share * (np.median(taken[True]) / np.median(taken[False]) - 1))


def line(run: Run) -> str:
    """The run's line of the table."""
    cosines = run.column("cosine")
    known = cosines[np.isfinite(cosines)]
    low, middle, high = np.percentile(known, [10, 50, 90]) if len(known) else (np.nan,) * 3
    ratios = run.ratio()
    ratios = ratios[np.isfinite(ratios)]
    thirds = np.array_split(cosines, 3)
    dice = max((row["mean_dice"] for row in run.validations if row["mean_dice"] is not None), default=np.nan)
    cells = [
        run.dataset,
        run.name,
        f"{len(run.rows)} of {run.steps[-1]['iteration'] if run.steps else 0} steps",
        f"{np.median(ratios) if len(ratios) else np.nan:.2f}",
        f"{middle:+.2f} ({low:+.2f} to {high:+.2f})",
        *(f"{100 * conflict(part):.0f} %" for part in (cosines, thirds[0], thirds[-1])),
        f"{dice:.4f}",
        f"{100 * cost(run):.1f} %",
    ]
    return f"| {' | '.join(cells)} |".replace("nan %", "–").replace("nan", "–")


def table(runs: Sequence[Run]) -> str:
    """The table as Markdown."""
    return "\n".join([HEAD, "|---|---|---|" + "---:|" * 7, *(line(run) for run in runs)])


def into_page(text: str, content: str) -> str:
    """The page with the table between its marks.

    Raises:
        SystemExit: the page has lost its marks.
    """
    if BEGIN not in text or END not in text:
        sys.exit(f"{PAGE.name} lacks the lines {BEGIN} and {END}; put them where the table belongs")
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{content}\n{END}{rest.split(END, 1)[1]}"


def figure(runs: Sequence[Run], path: Path) -> None:
    """Cosine and ratio of norms over the iterations: a column for each dataset, a line for each run."""
    from matplotlib.figure import Figure

    from rarevox.pipeline.pictures import OKABE_ITO

    datasets, names = (list(dict.fromkeys(values)) for values in zip(*((r.dataset, r.name) for r in runs), strict=True))
    drawing = Figure(figsize=(4.6 * len(datasets) + 0.6, 5.6), layout="constrained")
    axes = drawing.subplots(2, len(datasets), squeeze=False, sharey="row", sharex="col")
    for run in runs:
        upper, lower = axes[:, datasets.index(run.dataset)]
        steps = [row["iteration"] for row in run.rows]
        style = {"color": OKABE_ITO[names.index(run.name) % len(OKABE_ITO)], "linewidth": 1.3, "label": run.name}
        for ax, values in ((upper, run.column("cosine")), (lower, run.ratio())):
            ax.plot(steps, values, color=style["color"], linewidth=0.5, alpha=0.3)
            ax.plot(steps, smooth(values), **style)
    for column, dataset in enumerate(datasets):
        upper, lower = axes[:, column]
        upper.axhline(0, color="black", linewidth=0.8)
        lower.axhline(1, color="black", linewidth=0.8)
        upper.set(title=dataset, ylim=(-1.02, 1.02))
        lower.set(xlabel="iteration", yscale="log")
        upper.legend(fontsize=7, frameon=False)
    axes[0, 0].set_ylabel("cosine of the gradients")
    axes[1, 0].set_ylabel("norms, first ÷ second")
    for ax in axes.flat:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=110)


def smooth(values: np.ndarray) -> np.ndarray:
    """The median of each value and the four before it; what is not finite is left out."""
    parts = [values[max(i - 4, 0) : i + 1] for i in range(len(values))]
    return np.array([np.median(part[np.isfinite(part)]) if np.isfinite(part).any() else np.nan for part in parts])


def main() -> None:
    """Read the runs, write the page and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--print", action="store_true", dest="show", help="show the table, write nothing")
    arguments = parser.parse_args()
    runs = [read_run(folder) for folder in arguments.runs]
    content = table(runs)
    if arguments.show:
        print(content)
        return
    page = into_page(PAGE.read_text(encoding="utf-8"), content)
    figure(runs, PAGE.with_suffix(".png"))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
