#!/usr/bin/env python3
"""Points/s through a fleet against the engine alone on the same points; JSON on stdout.

    tests/bench/fleet/fleet.py --bin BUILD [--points 240] [--pairs 3] [--cores N] [--pace-ms N] [--out FILE]

Inputs: tests/data/real-log/*24nic*.log.zst, one trace of 480 tenants (rr, burst 3, replicate 4), and as many points
(preset hypertrio, IOTLB sizes x link speeds) as asked for. A point has to take 50 ms or more on a core, else the run
fails: below that the figure says nothing. Runs come in pairs, engine and fleet in turn, each pair with points of its own
so that nothing is known beforehand; the ratio is the median of the pairs. Other work on the machine spoils a
run (tasks are sessions of their own, so a nice level does not carry over): the load beside the figures says how far to
trust them; `chrt -r 5` in front keeps a busy machine out. Where the processor's own speed drifts by more than what is
looked for (shared hosts), `--pace-ms 60 --replicate 1` lets every point take the same time whatever the speed: what is
left is what the fleet adds.
"""
import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime

SRC = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def cpu_children():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime


def wait_for(path, proc):
    for _ in range(600):
        if os.path.exists(path):
            return json.load(open(path))
        if proc.poll() is not None:
            sys.exit(f"fleet.py: {path}: {proc.args[1]} ended with {proc.returncode}")
        time.sleep(0.05)
    sys.exit(f"fleet.py: {path}: not ready")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bin", default=os.environ.get("SIOFLEET_BIN"), required="SIOFLEET_BIN" not in os.environ)
    ap.add_argument("--points", type=int, default=240)
    ap.add_argument("--pairs", type=int, default=3)
    ap.add_argument("--cores", type=int, default=os.cpu_count())
    ap.add_argument("--replicate", type=int, default=4)
    ap.add_argument("--pace-ms", type=int, default=0)
    ap.add_argument("--out")
    a = ap.parse_args()
    sf = os.path.join(os.path.abspath(a.bin), "siofleet")
    work = tempfile.mkdtemp(prefix="sf-bench-")
    procs = []

    def sh(*args, **kw):
        return subprocess.run([sf, *args], check=True, stderr=subprocess.PIPE, **kw)

    try:
        trc = os.path.join(work, "big.trc")
        logs = sorted(os.path.join(SRC, "tests/data/real-log", f)
                      for f in os.listdir(os.path.join(SRC, "tests/data/real-log")) if "24nic" in f)
        log_args = [x for f in logs for x in ("--log", f)]
        info = json.loads(sh("trace", "build", *log_args, "--replicate", str(a.replicate), "--tenants",
                             str(24 * len(logs) * a.replicate), "--burst", "3", "-o", trc, "--json",
                             stdout=subprocess.PIPE).stdout)

        ready = os.path.join(work, "ready")
        coord = subprocess.Popen([sf, "coordinator", "--data", work + "/c", "--listen", "tcp://127.0.0.1:*",
                                  "--ready-file", ready], stderr=open(work + "/c.log", "w"))
        procs.append(coord)
        doc = wait_for(ready, coord)
        env = dict(os.environ, SIOFLEET_CONNECT=doc["endpoint"], SIOFLEET_SERVER_KEY=work + "/c/keys/coordinator.pub",
                   SIOFLEET_KEY=work + "/c/keys/admin")
        sh("keys", "new", work + "/k", "--role", "agent", "--name", "bench")
        sh("keys", "allow", "--data", work + "/c", work + "/k.pub")
        agent = subprocess.Popen([sf, "agent", "--data", work + "/a", "--connect", doc["endpoint"], "--server-key",
                                  work + "/c/keys/coordinator.pub", "--key", work + "/k", "--cores", str(a.cores),
                                  "--ready-file", work + "/a.ready"], stderr=open(work + "/a.log", "w"))
        procs.append(agent)
        wait_for(work + "/a.ready", agent)

        def sweep(name, n, base):
            path = os.path.join(work, name + ".ini")
            open(path, "w").write(f"[sweep]\nname={name}\npace_ms={a.pace_ms}\n[trace t]\nfile={trc}\n[arch x]\npreset=hypertrio\n"
                                  f"link_gbps={base}..{base + (n + 4) // 5 - 1}:+1\niotlb_entries=64..1024:x2\n")
            return path

        def engine(path, out):
            c, t = cpu_children(), time.monotonic()
            with open(out, "w") as f:
                sh("perf", "sweep", path, "--threads", str(a.cores), "--csv", stdout=f)
            return time.monotonic() - t, cpu_children() - c

        def fleet(path, out):
            sweep_id = sh("sweep", "submit", path, env=env, stdout=subprocess.PIPE).stdout.decode().strip()
            doc = json.loads(sh("sweep", "wait", sweep_id, "--json", env=env, stdout=subprocess.PIPE).stdout)
            # from the durable submit to the last accepted row, not to the command's next look
            wall = (datetime.fromisoformat(doc["ended"]) - datetime.fromisoformat(doc["submitted"])).total_seconds()
            with open(out, "w") as f:
                sh("results", "query", "--sweep", sweep_id, "--csv", env=env, stdout=f)
            return wall, 0

        fleet(sweep("warm", 5, 50), os.devnull)  # the trace goes to the coordinator and into the agent's cache
        pairs, cpu_ms = [], []
        for i in range(a.pairs):
            path = sweep(f"p{i}", a.points, 100 + 100 * i)
            runs = {}
            for what in (("engine", "fleet") if i % 2 == 0 else ("fleet", "engine")):
                runs[what] = (engine if what == "engine" else fleet)(path, f"{work}/{what}.csv")
            if open(work + "/engine.csv").read() != open(work + "/fleet.csv").read():
                sys.exit("fleet.py: the fleet's rows differ from the engine's")
            load = os.getloadavg()[0]
            n = sum(1 for _ in open(work + "/engine.csv")) - 1
            cpu_ms.append(1000 * runs["engine"][1] / n)
            pairs.append({"points": n, "engine_s": round(runs["engine"][0], 3), "fleet_s": round(runs["fleet"][0], 3),
                          "wall_cost_pct": round(100 * (runs["fleet"][0] / runs["engine"][0] - 1), 2),
                          "load": round(load, 1)})
        point_ms = max(statistics.median(cpu_ms), a.pace_ms)
        best_engine = max(p["points"] / p["engine_s"] for p in pairs)
        best_fleet = max(p["points"] / p["fleet_s"] for p in pairs)
        result = {"schema": "siofleet.bench_fleet/1", "logs": [os.path.basename(f) for f in logs],
                  "trace": info["id"], "tenants": info["tenants"], "events": info["events"], "cores": a.cores,
                  "point_ms": round(point_ms, 1), "pace_ms": a.pace_ms, "engine_points_per_s": round(best_engine, 2),
                  "fleet_points_per_s": round(best_fleet, 2),
                  "wall_cost_pct": statistics.median(p["wall_cost_pct"] for p in pairs),
                  "pairs": pairs}
        text = json.dumps(result, indent=1) + "\n"
        if a.out:
            open(a.out, "w").write(text)
        sys.stdout.write(text)
        if point_ms < 50:
            sys.exit(f"fleet.py: a point took {point_ms:.1f} ms; 50 ms or more are needed (--replicate)")
    finally:
        for p in reversed(procs):
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(15)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
