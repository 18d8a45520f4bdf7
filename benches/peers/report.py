#!/usr/bin/env python3
"""report.py FILE.jsonl... - ubccl against the best peer, as Markdown tables.

For each point (transport, ranks, operation, type, size): the median over rounds of ubccl's p50 and of the best peer's
(the peer with the lowest median over all rounds, wherever the CPUs were), their ratio, and the lower and upper 90 %
bounds that bootstrap samples of whole rounds give it. A/A is our second program of each round over our first: what
differs by chance. First the rounds with the CPUs near each other, then those far apart; only these tags drop a round.
"""
import argparse
import collections
import json
import math
import random
import statistics
import sys

SAMPLES = 1000
OURS, AGAIN = ("ubccl", "default"), ("ubccl", "again")
OPERATIONS = ["allreduce", "allgather", "reduce_scatter", "broadcast", "alltoall", "barrier", "pingpong"]
MOVES_ONLY = {"allgather", "broadcast", "alltoall", "barrier", "pingpong"}  # whatever the type, only bytes count

Point = collections.namedtuple("Point", "transport ranks dtype op in_place bytes")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.jsonl")
    parser.add_argument("--near-ns", type=float, default=100, help="near: a cache line takes at most this (100)")
    parser.add_argument("--far-ns", type=float, default=150, help="far: a cache line takes at least this (150)")
    parser.add_argument("--least", type=int, default=3, help="rounds that a median needs (3)")
    parser.add_argument("--any", action="store_true", help="one table of all rounds, wherever the CPUs were")
    return parser.parse_args()


def place(record, asked):
    """Where the CPUs stood before the run and after it."""
    line_ns = record.get("near_ns") or [math.nan]
    if asked.any:
        return "anywhere"
    return "near" if max(line_ns) <= asked.near_ns else "far" if min(line_ns) >= asked.far_ns else "between"


def read(asked):
    """-> {point: {program: {round: (place, p50)}}}, what went wrong"""
    points, faults = collections.defaultdict(lambda: collections.defaultdict(dict)), []
    for number, file in enumerate(asked.files):
        with open(file, encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                name = f"{record['peer']} {record.get('note', '')} over {record.get('transport')}, {record.get('ranks')} " \
                       f"ranks, round {record.get('rep')}"
                if "error" in record:
                    faults.append(f"{name}: {record.get('op', '')} {record['error']}")
                    continue
                point = Point(*(record[key] for key in ("transport", "ranks", "dtype", "op", "inplace", "bytes")))
                if not record["ok"]:
                    faults.append(f"{name}: {point.op} of {point.bytes} bytes: WRONG RESULT")
                    continue
                runs = points[point][record["peer"], record["note"]]
                runs[number, record["rep"]] = place(record, asked), record["p50_us"]
    return points, faults


def peers_of(points, point):
    """The peers' runs of a point: if only bytes count, those of float32 stand for any type's."""
    at = point._replace(dtype="float32") if point.op in MOVES_ONLY else point
    return {name: runs for name, runs in points[at].items() if name[0] != "ubccl"} if at in points else {}


def at_place(runs, wanted):
    return {key: p50 for key, (where, p50) in runs.items() if where == wanted}


def bounds(ours, theirs):
    """The lower and the upper 90 % bound of the ratio of medians, when rounds are drawn with replacement."""
    rounds = sorted(set(ours) | set(theirs))
    draw = random.Random(20240607)
    ratios = []
    while len(ratios) < SAMPLES:
        drawn = draw.choices(rounds, k=len(rounds))
        a = [ours[r] for r in drawn if r in ours]
        b = [theirs[r] for r in drawn if r in theirs]
        if a and b:
            ratios.append(statistics.median(a) / statistics.median(b))
    ratios.sort()
    return ratios[SAMPLES // 10], ratios[SAMPLES - 1 - SAMPLES // 10]


def size(count):
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count} B"


def us(time):
    if time < 10:
        return f"{time:.2f}"
    return f"{time:.1f}" if time < 100 else f"{time:,.0f}"


class Row:
    """One point at one place. What cannot be said for want of rounds is None."""

    def __init__(self, points, point, wanted, least):
        self.point, self.ratio, self.low, self.high, self.chance = point, None, None, None, None
        mine = at_place(points[point][OURS], wanted)
        again = at_place(points[point][AGAIN], wanted)
        peers = peers_of(points, point)
        self.best = min(peers, key=lambda name: statistics.median(p50 for _, p50 in peers[name].values()), default=None)
        theirs = at_place(peers[self.best], wanted) if self.best else {}
        self.rounds, self.dropped = (len(mine), len(theirs)), len(points[point][OURS]) - len(mine)
        self.ours = statistics.median(mine.values()) if len(mine) >= least else None
        self.theirs = statistics.median(theirs.values()) if len(theirs) >= least else None
        if self.ours and len(again) >= least:
            self.chance = statistics.median(again.values()) / self.ours
        if self.ours and self.theirs:
            self.ratio = self.ours / self.theirs
            self.low, self.high = bounds(mine, theirs)

    def name(self):
        op = self.point.op + (" in place" if self.point.op == "allreduce" and self.point.in_place else "")
        return f"{op} {size(self.point.bytes)}"

    def cells(self):
        best = "–" if not self.best else self.best[0] + ("" if self.best[1] == "default" else f" ({self.best[1]})")
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f} ({self.low:.2f}–{self.high:.2f})"
        return [size(self.point.bytes), *("–" if t is None else us(t) for t in (self.ours, self.theirs)), best, ratio,
                "–" if self.chance is None else f"{self.chance:.2f}",
                f"{self.rounds[0]} / {self.rounds[1]}, {self.dropped} dropped"]


def summary(rows):
    """How the rows stand, in a few lines."""
    told = [row for row in rows if row.ratio is not None]
    if not told:
        return ["No point has enough rounds of ours and a peer's."]
    mean = math.exp(statistics.fmean(math.log(row.ratio) for row in told))
    least = sum(row.ratio <= 1 for row in told)
    over = [f"{row.name()} {row.low:.2f}" for row in told if row.low > 1.1]
    uneasy = [f"{row.name()} {row.chance:.2f}" for row in rows if row.chance and not 0.9 <= row.chance <= 1.1]
    return [f"{len(told)} points: geometric mean {mean:.2f}; {least} of them ({100 * least / len(told):.0f} %) at 1.00 "
            f"or less; lower bound above 1.10 at {len(over)}{': ' + ', '.join(over) if over else ''}.",
            f"Our own spread (A/A) beyond ± 10 % at {len(uneasy)}{': ' + ', '.join(uneasy) if uneasy else ''}."]


def tables(points, wanted, least):
    """Prints the tables of a place; the summary of each transport, number of ranks and type last."""
    key = lambda point: (point.transport, point.ranks, point.dtype)
    for transport, ranks, dtype in sorted({key(point) for point in points if OURS in points[point]}):
        rows = []
        for op, in_place in [(op, i) for op in OPERATIONS for i in (0, 1)]:
            here = sorted(p for p in points if key(p) == (transport, ranks, dtype) and (p.op, p.in_place) == (op, in_place)
                          and OURS in points[p])
            if not here:
                continue
            how = (", in place" if in_place else ", out of place") if op == "allreduce" else ""
            print(f"#### {op}{how}: {transport}, {ranks} ranks, {dtype}, CPUs {wanted}\n")
            if dtype != "float32":
                print("No peer's program has this type" +
                      ("; nothing is reckoned, so theirs of float32 stand beside.\n" if op in MOVES_ONLY else ".\n"))
            print("| size | ubccl p50 µs | best peer p50 µs | best peer | ubccl / peer (90 % bounds) | A/A | rounds, ours / theirs |")
            print("|---:|---:|---:|---|---|---|---|")
            for point in here:
                rows.append(Row(points, point, wanted, least))
                print("| " + " | ".join(rows[-1].cells()) + " |")
            print()
        print(f"{transport}, {ranks} ranks, {dtype}, CPUs {wanted}. " + "\n".join(summary(rows)) + "\n")


def main():
    asked = arguments()
    points, faults = read(asked)
    for wanted in ["anywhere"] if asked.any else ["near", "far"]:
        tables(points, wanted, asked.least)
    print(f"A ratio under 1 means that ubccl is faster. Near: a cache line takes {asked.near_ns:g} ns at most before and "
          f"after a run; far: {asked.far_ns:g} ns at least. A median needs {asked.least} rounds.")
    for fault in faults:
        print(f"- {fault}")
    return 1 if any("WRONG" in fault for fault in faults) or not points else 0


if __name__ == "__main__":
    sys.exit(main())
