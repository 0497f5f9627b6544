"""Writes what a whole run measured into docs/: a page of tables, and a plot of the ratios.

The plot has a bar for each figure that has a target: as many times as good as what it is compared
with, on a scale where twice is as far from once as half is. A mark shows the target.
"""

import datetime
import html
import json
import math
import os
import pathlib
import platform
import subprocess
import sys

WIDTH, LABELS, RIGHT, LINE, TOP = 960, 520, 60, 18, 62
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .head { font-size: 15px; font-weight: 600 } .group { font-weight: 600 } .dim { fill: #6e7781 }
  .met { fill: #1a7f37 } .missed { fill: #cf222e }
  .grid { stroke: #d0d7de } .aim { stroke: #24292f; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .dim { fill: #8d96a0 } .met { fill: #3fb950 } .missed { fill: #f85149 }
    .grid { stroke: #30363d } .aim { stroke: #e6edf3 } .page { fill: #0d1117 }
  }
"""


def gain(line):
    """How many times as good, whether more or less is better; and the same for the target."""
    ratio, target = line["ratio"], line["target"]
    if line["absolute"]:
        target = 1
    return (ratio, target) if line["more"] else (1 / ratio, 1 / target)


def bars(results):
    for result in results:
        lines = [line for line in result["verdicts"] if line["met"] is not None and line["ratio"] > 0]
        if lines:
            yield result["title"].partition(", medians")[0].partition(" (")[0], None
            for line in lines:
                yield None, line


def svg(results):
    rows = list(bars(results))
    gains = [value for _, line in rows if line for value in gain(line)]
    # What is further out than this ends there; its number says how far it would go.
    low, high = max(min([0.5, *gains]), 1 / 16), min(max([2, *gains]), 32)
    low, high = math.floor(math.log2(low)), math.ceil(math.log2(high))
    across = WIDTH - LABELS - RIGHT

    def x(value):
        return LABELS + across * (min(max(math.log2(value), low), high) - low) / (high - low)

    height = TOP + LINE * len(rows) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text class="head" x="16" y="24">Tidegate beside its targets</text>',
        '<text class="dim" x="16" y="42">to the right is better; the mark is the target</text>',
    ]
    for power in range(low, high + 1):
        at, label = x(2**power), f"{2**power:g}×" if power >= 0 else f"1/{2**-power}×"
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{height - 12}"/>')
        parts.append(f'<text class="dim" x="{at:.1f}" y="{TOP - 14}" text-anchor="middle">{label}</text>')
    for number, (title, line) in enumerate(rows):
        y = TOP + LINE * number
        if line is None:
            parts.append(f'<text class="group" x="16" y="{y + 14}">{html.escape(title)}</text>')
            continue
        got, target = gain(line)
        whose = line["whose"]
        if whose.startswith("our "):
            whose = "our " + whose.rpartition(", ")[2]
        beside = f"{line['theirs']:g}" if line["absolute"] else whose
        label = html.escape(f"{line['what']}: {line['figure']} beside {beside}")
        left, right = sorted((x(1), x(got)))
        shade = "met" if line["met"] else "missed"
        parts += [
            f'<text x="{LABELS - 12}" y="{y + 14}" text-anchor="end">{label}</text>',
            f'<rect class="{shade}" x="{left:.1f}" y="{y + 4}" width="{max(right - left, 1):.1f}" '
            f'height="{LINE - 8}" rx="2"/>',
            f'<line class="aim" x1="{x(target):.1f}" x2="{x(target):.1f}" y1="{y + 2}" y2="{y + LINE - 2}"/>',
            f'<text class="dim" x="{WIDTH - RIGHT + 8}" y="{y + 14}">{got:.2f}×</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def machine():
    with open("/proc/cpuinfo") as file:
        names = {line.partition(":")[2].strip() for line in file if line.startswith("model name")}
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    return (f"{datetime.date.today()}, {os.cpu_count()} cores ({', '.join(sorted(names)) or 'unknown'}), "
            f"{memory:.0f} GiB, {platform.system()} {platform.release()}")


def versions():
    for program, *arguments in (["nginx", "-v"], ["docker-registry", "--version"],
                                ["registry", "--version"], ["zot", "--version"], ["curl", "--version"]):
        try:
            done = subprocess.run([program, *arguments], capture_output=True, text=True)
        except OSError:
            yield f"not here: {program}"
            continue
        yield (done.stdout or done.stderr).splitlines()[0].removeprefix("/usr/bin/")


def main(measured, docs):
    in_order = sorted(measured.glob("*.json"), key=os.path.getmtime)
    results = [json.loads(path.read_text()) for path in in_order]
    page = [
        "# Measured", "", "`make bench` wrote this page; [performance.md](performance.md) explains it.", "",
        f"{machine()}. {'; '.join(versions())}.", "",
        "![Tidegate beside its targets](measured.svg)", "",
    ]
    for result in results:
        page += ["#" + result["text"].removeprefix("##"), ""]
    (docs / "measured.md").write_text("\n".join(page))
    (docs / "measured.svg").write_text(svg(results))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
