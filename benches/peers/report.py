#!/usr/bin/env python3
"""report.py FILE.jsonl... - ubccl against the best peer, as Markdown tables.

For each transport, ranks, in place or not, and size: the median over rounds of ubccl's p50 and of the best peer's (the
peer with the lowest median), their ratio, and the range that 95 % of 2,000 bootstrap samples of whole rounds give that
ratio; the best peer stays the one of the whole sample. Runs of other places than --place are left out.
"""
import argparse
import collections
import json
import random
import statistics
import sys

SAMPLES = 2000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.jsonl")
    parser.add_argument("--place", choices=["near", "far", "any"], default="near",
                        help="which runs count: those during which the two CPUs were near (default), far, or all")
    parser.add_argument("--near-ns", type=float, default=100, help="near: a cache line takes at most this (100)")
    parser.add_argument("--far-ns", type=float, default=150, help="far: a cache line takes at least this (150)")
    parser.add_argument("--least", type=int, default=3, help="rounds that a median needs (3)")
    return parser.parse_args()


def is_in_place(record, asked):
    """Whether the CPUs stood as asked, before the run and after it."""
    line_ns = record.get("near_ns") or []
    if asked.place == "any":
        return True
    if not line_ns:
        return False
    return max(line_ns) <= asked.near_ns if asked.place == "near" else min(line_ns) >= asked.far_ns


def read(asked):
    """-> {(transport, ranks, in place, bytes): {(peer, note): {round: p50}}}, how many count, what went wrong"""
    tables = collections.defaultdict(lambda: collections.defaultdict(dict))
    seen = counted = 0
    faults = []
    for number, file in enumerate(asked.files):
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                if "error" in record:
                    faults.append(f"{record['peer']} {record.get('note', '')} over {record.get('transport')}, "
                                  f"round {record.get('rep')}: {record['error']}")
                    continue
                if record.get("op") != "allreduce":
                    continue
                seen += 1
                point = record["transport"], record["ranks"], record["inplace"], record["bytes"]
                runs = tables[point][record["peer"], record["note"]]  # there even if nothing counts
                if not record["ok"]:
                    faults.append(f"{record['peer']} over {record['transport']}, {record['bytes']} bytes, round "
                                  f"{record['rep']}: WRONG RESULT")
                elif is_in_place(record, asked):
                    counted += 1
                    runs[number, record["rep"]] = record["p50_us"]
    return tables, (seen, counted), faults


def interval(ours, theirs):
    """The middle 95 % of the ratio of medians when rounds are drawn with replacement."""
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
    return ratios[SAMPLES * 25 // 1000], ratios[SAMPLES * 975 // 1000]


def size(count):
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count} B"


def us(time):
    if time < 10:
        return f"{time:.2f}"
    return f"{time:.1f}" if time < 100 else f"{time:,.0f}"


def row(runs, least):
    """The cells of one size: ours, the best peer's, its name, the ratio and its range, rounds of both."""
    enough = {name: rounds for name, rounds in runs.items() if len(rounds) >= least}
    medians = {name: statistics.median(rounds.values()) for name, rounds in enough.items()}
    ours = next((name for name in medians if name[0] == "ubccl"), None)
    peers = [name for name in medians if name[0] != "ubccl"]
    best = min(peers, key=medians.get) if peers else None
    used = [max((len(r) for n, r in runs.items() if (n[0] == "ubccl") == mine), default=0) for mine in (True, False)]
    cells = [us(medians[ours]) if ours else "–", us(medians[best]) if best else "–", "–", "–", f"{used[0]} / {used[1]}"]
    if best:
        cells[2] = best[0] + (f" ({best[1]})" if best[1] not in ("", "default") else "")
        cells[4] = f"{used[0]} / {len(enough[best])}"
    if ours and best:
        low, high = interval(enough[ours], enough[best])
        cells[3] = f"{medians[ours] / medians[best]:.2f} ({low:.2f}–{high:.2f})"
    return cells


def main():
    asked = arguments()
    tables, (seen, counted), faults = read(asked)
    for transport, ranks, in_place in sorted({point[:3] for point in tables}):
        how = "in place" if in_place else "out of place"
        print(f"### All-reduce over {transport}, {ranks} ranks, float32, {how}\n")
        print("| size | ubccl p50 µs | best peer p50 µs | best peer | ubccl / peer (95 %) | rounds, ours / theirs |")
        print("|---:|---:|---:|---|---|---|")
        for point in sorted(point for point in tables if point[:3] == (transport, ranks, in_place)):
            print(f"| {size(point[3])} | " + " | ".join(row(tables[point], asked.least)) + " |")
        print()
    place = {"near": f"CPUs near each other (a cache line in {asked.near_ns:g} ns at most, before and after)",
             "far": f"CPUs far from each other (a cache line in {asked.far_ns:g} ns at least)", "any": "any placement"}
    print(f"A ratio under 1 means that ubccl is faster. Used: {counted} of {seen} measurements, {place[asked.place]}; "
          f"a median needs {asked.least} rounds.")
    for fault in faults:
        print(f"- {fault}")
    return 1 if any("WRONG" in fault for fault in faults) or not counted else 0


if __name__ == "__main__":
    sys.exit(main())
