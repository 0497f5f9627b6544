"""Tables: what every stack did, and how Tidegate compares with what it is meant to reach."""

import json
import os
import pathlib
import statistics
from typing import NamedTuple

import peers

# Whom a figure is compared with. Of the first, the best by that figure counts.
PROXIED = "best nginx + registry"
V3 = peers.V3.name
FILE = peers.File.name
FLOOR = peers.Floor.name
STREAM = "one TCP stream"
RIVALS = {
    PROXIED: [kind.name for kind in peers.PEERS if kind.proxied],
    V3: [V3],
    FILE: [FILE],
    FLOOR: [FLOOR],
    STREAM: [STREAM],
}
OURS = peers.Tidegate.name


class Column(NamedTuple):
    """A figure: its unit, and whether more of it is better, or less, or neither (None)."""

    label: str
    more: bool | None
    digits: int = 2
    # Its ratios are printed even where there is no target.
    compared: bool = True


class Report:
    """What one question measured: a tuple of figures for each run of each stack in each row."""

    def __init__(self, question, title, columns):
        self.question, self.title, self.columns = question, title, columns
        self.runs = {}
        self.targets = {}
        self.notes = []

    def note(self, row, stack, *figures):
        self.runs.setdefault(row, {}).setdefault(stack, []).append(figures)

    def target(self, row, label, against, limit):
        """What a figure must reach: a ratio to a rival or to another row of ours, or, with
        `against` None, a bound on the figure itself."""
        self.targets[row, label, against] = limit

    def median(self, row, stack, column):
        runs = self.runs.get(row, {}).get(stack)
        return statistics.median(run[self.columns.index(column)] for run in runs) if runs else None

    def best(self, row, against, column):
        """The rival's figure, and whose it is; nothing where it was not asked for."""
        if against in self.runs:
            return self.median(against, OURS, column), f"our {against}"
        figures = [(self.median(row, name, column), name) for name in RIVALS.get(against, ())]
        figures = [figure for figure in figures if figure[0] is not None]
        if not figures:
            return None, against
        return max(figures) if column.more else min(figures)

    def verdicts(self):
        """One line for each comparison: what, figure, ours, whose, theirs, ratio, target, met."""
        lines = []
        for row in self.runs:
            for column in self.columns:
                ours = self.median(row, OURS, column)
                if ours is None or column.more is None:
                    continue
                own = [against for line, label, against in self.targets
                       if (line, label) == (row, column.label) and against not in RIVALS]
                for against in [*(RIVALS if column.compared else ()), *own]:
                    limit = self.targets.get((row, column.label, against))
                    theirs, whose = (limit, "") if against is None else self.best(row, against, column)
                    if not theirs or (against in RIVALS and not column.compared and limit is None):
                        continue
                    ratio = ours / theirs
                    bound = 1 if against is None else limit
                    met = None if bound is None else ratio >= bound if column.more else ratio <= bound
                    lines.append({
                        "what": row, "figure": column.label, "more": column.more, "ours": ours,
                        "whose": whose, "theirs": theirs, "ratio": ratio, "target": bound,
                        "met": met, "digits": column.digits, "absolute": against is None,
                    })
        return lines

    def table(self):
        heads = " | ".join(column.label for column in self.columns)
        yield f"| what | stack | {heads} |"
        yield "|---|---|" + "---:|" * len(self.columns)
        for row, stacks in self.runs.items():
            for stack, runs in stacks.items():
                cells = " | ".join(
                    spread([run[place] for run in runs], column.digits)
                    for place, column in enumerate(self.columns)
                )
                yield f"| {row} | {stack} | {cells} |"

    def comparison(self):
        lines = self.verdicts()
        if not lines:
            return
        yield "| what | figure | Tidegate | beside | theirs | ratio | target | |"
        yield "|---|---|---:|---|---:|---:|---:|---|"
        for line in lines:
            digits = line["digits"]
            sign = "≥" if line["more"] else "≤"
            word = {True: "met", False: "**missed**", None: ""}[line["met"]]
            if line["absolute"]:
                theirs, ratio, target = "", "", f"{sign} {line['theirs']:,.{digits}f}"
            else:
                theirs, ratio = f"{line['theirs']:,.{digits}f}", times(line["ratio"])
                target = "" if line["target"] is None else f"{sign} {line['target']:g}×"
            yield (f"| {line['what']} | {line['figure']} | {line['ours']:,.{digits}f} "
                   f"| {line['whose']} | {theirs} | {ratio} | {target} | {word} |")

    def finish(self):
        """Prints everything, and keeps it where the plot and the documentation are made."""
        text = "\n".join([
            f"### {self.title}", "", *self.table(), "", *self.comparison(),
            *(f"\n{note}" for note in self.notes),
        ])
        print(f"\n{text}\n", flush=True)
        if out := os.environ.get("BENCH_OUT"):
            kept = {"title": self.title, "text": text, "verdicts": self.verdicts()}
            (pathlib.Path(out) / f"{self.question}.json").write_text(json.dumps(kept, indent=1))


def times(ratio):
    return f"{ratio:.2f}×" if ratio >= 0.1 else f"{ratio:.1g}×"


def spread(values, digits):
    """The median, and between what it lies."""
    middle = f"{statistics.median(values):,.{digits}f}"
    low, high = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return middle if low == high else f"{middle} ({low}–{high})"
