#!/usr/bin/env python3
"""What collecting costs: ns an event of each tracer, guest throughput with each, bytes an event at rest, events/s packed. JSON on
stdout.

    tests/bench/collect/collect.py --bin BUILD [--only ring|backends|guest|rest|encode]... [--rounds 3] [--bytes 64M] [--out FILE]

ring      vtd-ring-bench of the built QEMU, best of three (on and off; `text`: a line formatted and written by stdio)
backends  qemu-patch/bench/run.sh: QEMU's own log and simple backends, each in a configuration of its own (minutes; only when asked for)
guest     iperf3 in one e1000 guest with tracing off, ring and log, in turns, so that a drift of the machine meets all alike; the ratio to
          off is taken within each round, then the median
rest      bytes an event: the shipped real logs imported (text, no time), and the guest's fresh ring logs
encode    collect_encode (CPU time of one core) over the same files
Load beside the figures says how far to trust them.
"""
import argparse
import glob
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

SRC = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PARTS = ["ring", "guest", "rest", "encode"]


def run(*argv):
    p = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    if p.returncode:
        sys.exit(f"collect.py: {' '.join(argv[:3])}: exit {p.returncode}")
    return p.stdout


def load():
    return [round(x, 1) for x in os.getloadavg()]


def ring():
    qemu = run("sh", f"{SRC}/qemu-patch/build.sh").split()[-1]
    best = {}
    for _ in range(3):
        words = run(os.path.join(os.path.dirname(qemu), "vtd-ring-bench")).split()
        for k, v in zip(words[::2], words[1::2]):
            if k in ("on", "off", "text"):
                best[k + "_ns"] = min(float(v), best.get(k + "_ns", 1e9))
    return best


def backends():
    out = {}
    for line in run("sh", f"{SRC}/qemu-patch/bench/run.sh").splitlines():
        m = re.match(r"(.+): ([\d.]+) ns an event ([\d.]+) median ([\d.]+) bytes an event (\d+) of (\d+) dropped", line)
        if m:
            ns, median, size, dropped, sent = (float(x) for x in m.groups()[1:])
            old = out.get(m[1])
            if not old or ns < old["ns"]:
                out[m[1]] = {"ns": ns, "median_ns": median, "bytes_per_event": size, "dropped_share": dropped / sent}
    return out


def guest(sf, work, rounds, size):
    tracers = ["off", "ring", "log"]
    profile = run(sf, "collect", "init", "quick")
    for t in tracers:
        with open(f"{work}/{t}.ini", "w") as f:
            f.write(re.sub(r"(?m)^bytes = .*", f"bytes = {size}", re.sub(r"(?m)^tracer = .*", f"tracer = {t}", profile)))
    rows, logs = [], []
    for i in range(rounds):
        row = {}
        for t in tracers[i % 3:] + tracers[:i % 3]:
            d = json.loads(run(sf, "collect", "--local", f"{work}/{t}.ini", "-o", f"{work}/{t}-{i}", "--json"))["runs"][0]
            w = json.load(open(d["workload"][0]["path"]))
            row[t] = round(w["end"]["sum_sent"]["bits_per_second"] / 1e6, 1)
            if t == "ring":
                logs.append(d["log"])
        rows.append(row)
    return {"mbps": rows, "ratio_to_off": {t: round(statistics.median(r[t] / r["off"] for r in rows), 3) for t in tracers[1:]}}, logs


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bin", default=os.environ.get("SIOFLEET_BIN"), required="SIOFLEET_BIN" not in os.environ)
    ap.add_argument("--only", action="append", choices=PARTS + ["backends"])
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--bytes", default="64M")
    ap.add_argument("--out")
    a = ap.parse_args()
    parts = a.only or PARTS
    sf = os.path.join(a.bin, "siofleet")
    doc = {"schema": "siofleet.bench-collect/1", "load_before": load()}
    with tempfile.TemporaryDirectory(prefix="sf-bench-") as work:
        logs = []
        if "ring" in parts:
            doc["ring"] = ring()
        if "backends" in parts:
            doc["backends"] = backends()
        if "guest" in parts:
            doc["guest"], logs = guest(sf, work, a.rounds, a.bytes)
        packed = [x["path"] for x in logs]
        if "rest" in parts or "encode" in parts:
            for f in sorted(glob.glob(f"{SRC}/tests/data/real-log/*.log.zst")):
                out = f"{work}/{os.path.basename(f)}.slog"
                run(sf, "log", "import", f, "-o", out)
                packed.append(out)
        if not {"rest", "encode"} & set(parts):
            packed = []
        figures = [json.loads(run(os.path.join(a.bin, "tests/bench/collect_encode"), p)) for p in packed]
        for part, keys in (("rest", ["bytes_per_event"]), ("encode", ["encode_events_per_s", "decode_events_per_s"])):
            if part in parts:
                doc[part] = [{k: x[k] for k in ["log", "events"] + keys} for x in figures]
    doc["load_after"] = load()
    text = json.dumps(doc, indent=1)
    print(text)
    if a.out:
        with open(a.out, "w") as f:
            f.write(text + "\n")


main()
