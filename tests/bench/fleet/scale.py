#!/usr/bin/env python3
"""Scale and speed of a fleet on this machine, with the real programs; JSON on stdout.

    tests/bench/fleet/scale.py --bin BUILD [--only ROW,...] [--others] [--install] [--baseline OLD.json] [--out FILE]
    tests/bench/fleet/scale.py --bin BUILD --smoke      counts only, no figures: what CI runs

Rows: dispatch, latency, memory, agents, connections, restart, exec. What each one measures stands in README.md beside this
file. The machine's own probes (spawn rate, fsync, loopback, hash) and the load stand beside the figures: this is one
machine, the coordinator, its peers and everything else share its cores. --others runs GNU parallel, dask.distributed and
Slurm where they are installed (--install: gets them from Debian's packages first, as root); --baseline prints each figure
as a ratio to an older run.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
TICK = os.sysconf("SC_CLK_TCK")


def fail(text):
    sys.exit(f"scale.py: {text}")


def cpu_s(pid):
    f = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    return (int(f[11]) + int(f[12])) / TICK


def rss_b(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) << 10


def until(what, cond, seconds, proc=None):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = cond()
        if got:
            return got
        if proc and proc.poll() is not None:
            fail(f"{what}: a program ended with {proc.returncode}")
        time.sleep(0.01)
    fail(f"{what}: not within {seconds} s")


def read_json(path):
    try:
        return json.load(open(path))
    except (OSError, ValueError):
        return None


class Fleet:
    """A coordinator in a folder of its own; everything that it starts ends with it."""

    def __init__(self, a, *args):
        self.a, self.procs, self.args = a, [], args
        self.dir = tempfile.mkdtemp(prefix="sf-scale-", dir=a.dir)
        self.start()

    def start(self):
        ready = self.path("ready")
        self.coord = self.spawn("coordinator", self.a.sf, "coordinator", "--data", self.path("c"), "--listen",
                                getattr(self, "ep", "tcp://127.0.0.1:*"), "--ready-file", ready, *self.args)
        self.ep = until("coordinator", lambda: read_json(ready), 60, self.coord)["endpoint"]
        self.env = dict(os.environ, SIOFLEET_CONNECT=self.ep, SIOFLEET_SERVER_KEY=self.path("c/keys/coordinator.pub"),
                        SIOFLEET_KEY=self.path("c/keys/admin"))

    def path(self, name):
        return os.path.join(self.dir, name)

    def spawn(self, name, *cmd, stdout=None):
        p = subprocess.Popen(cmd, stdout=stdout or subprocess.DEVNULL, stderr=open(self.path(name + ".log"), "a"),
                             env=getattr(self, "env", None), text=True)
        self.procs.append(p)
        return p

    def run(self, *args, **kw):
        r = subprocess.run([self.a.sf, *args], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)
        if r.returncode:
            fail(f"{args[0]}: {r.stderr.strip()}")
        return r.stdout

    def sweep(self, name, points, block, nth=0):
        """An INI of at least that many points over a small trace; they differ in four keys. nth: others than those of 0."""
        if not os.path.exists(self.path("t.trc")):
            log = os.path.join(SRC, "tests/data/real-log/e1000-24nic-rx3.log.zst")
            self.run("trace", "build", "--log", log, "--tenants", "4", "-o", self.path("t.trc"))
        link = min(max(1, points // 100), 1000)
        queue = min(max(1, points // 100 // link), 1000)
        history = max(10, points // 10 // link // queue)
        open(self.path(name + ".ini"), "w").write(
            f"[sweep]\nname={name}\nblock={block}\n[trace t]\nfile=t.trc\n[arch x]\nlink_gbps=1..{link}:+1\n"
            f"queue={1 + nth * queue}..{(nth + 1) * queue}:+1\npf_distance=1..10:+1\npf_history=1..{history}:+1\n")
        self.points = link * queue * 10 * history
        return self.path(name + ".ini")

    def submit(self, ini):
        return self.run("sweep", "submit", ini).strip()

    def load(self, what, *args):
        return self.spawn("load", self.a.load, what, "--data", self.path("c"), "--connect", self.ep, *map(str, args),
                          stdout=subprocess.PIPE)

    def result(self, load, seconds):
        try:
            out, _ = load.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            fail(f"load: not done within {seconds} s")
        if load.returncode:
            fail(open(self.path("load.log")).read().strip() or "load failed")
        return json.loads(out)

    def end(self):
        for p in reversed(self.procs):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
        for p in reversed(self.procs):
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if os.environ.get("SF_SCALE_KEEP"):
            print(self.dir, file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def with_fleet(f):
    def g(a):
        fleet = Fleet(a)
        try:
            load = os.getloadavg()[0]
            r = f(a, fleet)
            r["load"] = [round(load, 1), round(os.getloadavg()[0], 1)]
            return r
        finally:
            fleet.end()
    return g


def push_points(fleet, name, points, agents, nth=0):
    ini = fleet.sweep(name, points, 1024, nth)
    points = fleet.points
    fleet.submit(ini)
    cpu = cpu_s(fleet.coord.pid)
    d = fleet.result(fleet.load("agents", "--agents", agents, "--sweep", ini, "--points", points, "--seconds", 300), 400)
    return {"points_per_s": d["rows_per_s"], "points": d["rows_acked"], "seconds": d["seconds"],
            "coordinator_us_a_point": round(1e6 * (cpu_s(fleet.coord.pid) - cpu) / points, 2),
            "load_us_a_point": round(1e6 * d["cpu_s"] / points, 2)}


def queue_tasks(fleet, jobs, tasks):
    t = time.monotonic()
    fleet.result(fleet.load("queue", "--jobs", jobs, "--tasks", tasks), 600)
    return time.monotonic() - t


def median(rows):
    return {k: sorted(r[k] for r in rows)[len(rows) // 2] for k in rows[0]}


@with_fleet
def dispatch(a, fleet):
    """Beside 1,000 and beside --queued waiting tasks, in turns: what else the machine does then meets both alike."""
    full = Fleet(a)
    try:
        queue_tasks(fleet, 1, 1000)
        secs = queue_tasks(full, a.queued // 10000, 10000)
        few, many = [], []
        for i in range(a.rounds):
            for f, rows in ((fleet, few), (full, many)) if i % 2 else ((full, many), (fleet, few)):
                rows.append(push_points(f, f"round{i}", a.points, 16, i))
    finally:
        full.end()
    ratios = sorted(m["points_per_s"] / f["points_per_s"] for f, m in zip(few, many))
    return {"queue_1000": median(few), "queue_full": median(many), "queued": a.queued, "queue_s": round(secs, 2),
            "rounds": a.rounds, "full_to_1000": round(ratios[len(ratios) // 2], 3)}


@with_fleet
def latency(a, fleet):
    ini = fleet.sweep("one", 1000, 1)
    fleet.submit(ini)  # the trace goes to the coordinator
    fleet.run("cancel", "last")
    open(ini, "w").write("[sweep]\nname=one\nblock=1\n[trace t]\nfile=t.trc\n[arch x]\nlink_gbps=7\n")
    d = fleet.result(fleet.load("latency", "--sweep", ini, "--runs", a.runs), 300)
    r = {"submit_to_grant_us": d["us"]}
    start_agent(fleet, 0)
    until("agent", lambda: any(i["name"] == "b0" for i in json.loads(fleet.run("ls", "agents", "--json"))["items"]), 30)
    whole, own = [], []
    for _ in range(40):
        t = time.monotonic_ns()
        stamp = int(fleet.run("exec", "--host", "b0", "--", a.load, "stamp"))
        whole.append((stamp - t) / 1000)
        own.append((time.monotonic_ns() - t) / 1000)
        time.sleep(0.05)
    whole.sort()
    own.sort()
    r["command_to_process_us"] = {"p50": round(whole[len(whole) // 2]), "max": round(whole[-1])}
    r["command_to_answer_us"] = {"p50": round(own[len(own) // 2]), "max": round(own[-1])}
    return r


@with_fleet
def memory(a, fleet):
    before = rss_b(fleet.coord.pid)
    queue_tasks(fleet, 10, 10000)  # what the first jobs need once
    first = rss_b(fleet.coord.pid)
    queue_tasks(fleet, a.queued // 10000 - 10, 10000)
    last = rss_b(fleet.coord.pid)
    ini = fleet.sweep("huge", 10**9, 1)
    fleet.run("cancel", fleet.submit(fleet.sweep("small", 1000, 1)))
    t = time.monotonic()
    base = rss_b(fleet.coord.pid)
    fleet.submit(ini)
    return {"bytes_a_queued_task": round((last - first) / (a.queued - 100000), 1), "queued": a.queued,
            "idle_mib": round(before / 2**20, 1), "sweep_1e9": {"submit_s": round(time.monotonic() - t, 3),
                                                                "bytes": rss_b(fleet.coord.pid) - base}}


def start_agent(fleet, i, *more):
    fleet.run("keys", "new", fleet.path(f"k{i}"), "--role", "agent", "--name", f"b{i}")
    shutil.copy(fleet.path(f"k{i}.pub"), fleet.path(f"c/keys/allowed/b{i}.pub"))  # `keys allow` reads all of them
    return fleet.spawn("agents", fleet.a.sf, "agent", "--data", fleet.path(f"a{i}"), "--connect", fleet.ep, "--server-key",
                       fleet.path("c/keys/coordinator.pub"), "--key", fleet.path(f"k{i}"), *(more or ("--cores", "1")))


def n_agents(fleet):
    doc = json.loads(fleet.run("ls", "agents", "--json"))
    return sum(i["state"] not in ("lost", "stopped") for i in doc["items"])


def private_b(pid):
    """What a process has for itself alone: of a thousand with one program the rest is there once."""
    text = open(f"/proc/{pid}/smaps_rollup").read()
    return sum(int(x) for x in re.findall(r"Private_\w+:\s+(\d+)", text)) << 10


@with_fleet
def agents(a, fleet):
    t = time.monotonic()
    procs = [start_agent(fleet, i) for i in range(a.processes)]
    until(f"{a.processes} agents", lambda: n_agents(fleet) >= a.processes, 600)
    up = time.monotonic() - t
    cpu, t = cpu_s(fleet.coord.pid), time.monotonic()
    time.sleep(a.seconds)
    idle = (cpu_s(fleet.coord.pid) - cpu) / (time.monotonic() - t)
    own = sorted(private_b(p.pid) for p in procs)
    agents_cpu, t = sum(cpu_s(p.pid) for p in procs), time.monotonic()
    time.sleep(5)
    agents_core = (sum(cpu_s(p.pid) for p in procs) - agents_cpu) / (time.monotonic() - t)
    t = time.monotonic()
    doc = json.loads(fleet.run("exec", "--json", "--", "true"))
    secs = time.monotonic() - t
    ini = fleet.sweep("small", 4 * a.processes, 4)
    t = time.monotonic()
    sweep = json.loads(fleet.run("sweep", "run", ini, "--json"))
    swept = time.monotonic() - t
    rows = json.loads(fleet.run("results", "query", "--sql", "SELECT count(DISTINCT agent) AS n FROM attempts WHERE kind = 'points'",
                                "--json"))["rows"][0][0]
    t = time.monotonic()
    for p in procs:
        p.send_signal(signal.SIGTERM)
    codes = [p.wait(60) for p in procs]
    stopped = time.monotonic() - t
    if sweep["done"] != fleet.points or any(codes):
        fail(f"agents: {sweep}, {sum(c != 0 for c in codes)} of them did not end well")
    return {"processes": a.processes, "all_up_s": round(up, 1), "coordinator_core_pct": round(100 * idle, 1),
            "coordinator_mib": round(rss_b(fleet.coord.pid) / 2**20, 1), "agents_core_pct": round(100 * agents_core, 1),
            "agent_own_mib": round(own[len(own) // 2] / 2**20, 2), "exec_everywhere_s": round(secs, 2),
            "exec_done": sum(i["status"] == "done" for i in doc["hosts"]), "sweep_points": fleet.points,
            "sweep_s": round(swept, 1), "sweep_agents": rows, "all_stopped_s": round(stopped, 1)}


@with_fleet
def connections(a, fleet):
    ready = fleet.path("load.ready")
    load = fleet.load("agents", "--agents", a.connections, "--ready-file", ready, "--seconds", 600)
    until(f"{a.connections} connections", lambda: os.path.exists(ready), 300, load)
    time.sleep(5)
    cpu, t = cpu_s(fleet.coord.pid), time.monotonic()
    time.sleep(a.seconds)
    core = (cpu_s(fleet.coord.pid) - cpu) / (time.monotonic() - t)
    rss = rss_b(fleet.coord.pid)
    heard = n_agents(fleet)
    load.send_signal(signal.SIGTERM)
    d = fleet.result(load, 60)
    if d["welcomed"] != a.connections or d["drops"] or heard != a.connections:
        fail(f"connections: beats were lost: {d}")
    return {"connections": a.connections, "connect_s": d["connect_s"], "coordinator_core_pct": round(100 * core, 1),
            "coordinator_mib": round(rss / 2**20, 1), "beat_us": d["beat_us"], "early_beat_us": d["early_beat_us"]}


@with_fleet
def restart(a, fleet):
    queue_tasks(fleet, a.queued // 10000, 10000)
    ini = fleet.sweep("running", a.running, 1)
    fleet.submit(ini)
    ready = fleet.path("load.ready")
    load = fleet.load("agents", "--agents", a.running // 2, "--hold", 2, "--sweep", ini, "--ready-file", ready,
                      "--seconds", 600)
    until("agents", lambda: os.path.exists(ready), 300, load)

    sql = "SELECT count(*) AS n FROM attempts WHERE ended IS NULL AND kind = 'points'"
    until("running tasks", lambda: json.loads(fleet.run("results", "query", "--sql", sql, "--json"))["rows"][0][0] >=
          a.running, 120, load)
    fleet.coord.kill()
    fleet.coord.wait()
    os.remove(fleet.path("ready"))
    os.remove(ready)
    load.send_signal(signal.SIGUSR1)  # what it takes it to close its old connections is nothing of ours
    until("connections closed", lambda: len(os.listdir(f"/proc/{load.pid}/fd")) < 1000, 60, load)
    t = time.monotonic()
    fleet.start()
    serving = time.monotonic() - t
    until("agents back", lambda: os.path.exists(ready), 120, load)
    back = time.monotonic() - t
    load.send_signal(signal.SIGTERM)
    d = fleet.result(load, 60)
    return {"queued": a.queued, "running": a.running, "agents": a.running // 2, "serving_s": round(serving, 3),
            "all_back_s": round(back, 3), "asked_back": d["drops"]}


def probe(a, *shim):
    d = tempfile.mkdtemp(prefix="sf-probe-", dir=a.dir)
    try:
        return json.loads(subprocess.run([a.probe, d, *shim], check=True, stdout=subprocess.PIPE).stdout)
    finally:
        shutil.rmtree(d, ignore_errors=True)


@with_fleet
def exec_row(a, fleet):
    r = probe(a, os.path.join(a.bin, "siofleet-shim"))
    start_agent(fleet, 0, "--cores", "2")
    until("agent", lambda: n_agents(fleet) == 1, 60)
    t = time.monotonic()
    fleet.result(fleet.load("queue", "--jobs", 200, "--exec", "b0"), 60)
    sql = "SELECT count(*) AS n FROM attempts WHERE cause = 'done'"
    until("commands", lambda: json.loads(fleet.run("results", "query", "--sql", sql, "--json"))["rows"][0][0] >= 200, 120)
    r["fleet_exec_per_s"] = round(200 / (time.monotonic() - t), 1)
    return r


ROWS = {"dispatch": dispatch, "latency": latency, "memory": memory, "agents": agents, "connections": connections,
        "restart": restart, "exec": exec_row}


def smoke(a):
    """What CI asserts: everything is answered once and nothing is lost, beside a long queue and over a kill -9."""
    fleet = Fleet(a, "--lease-ms", "6000")
    try:
        queue_tasks(fleet, 30, 100)  # most of these jobs are read after the restart while it serves already
        ini = fleet.sweep("smoke", 4000, 256)
        sweep = fleet.submit(ini)
        ready = fleet.path("load.ready")
        load = fleet.load("agents", "--agents", 60, "--hold", 1, "--sweep", ini, "--ready-file", ready, "--seconds", 100,
                          "--beat-ms", 500)
        until("agents", lambda: os.path.exists(ready), 60, load)
        until("tasks", lambda: json.loads(fleet.run("results", "query", "--sql", "SELECT count(*) AS n FROM attempts",
                                                    "--json"))["rows"][0][0] >= 16, 60, load)
        fleet.coord.kill()
        fleet.coord.wait()
        os.remove(fleet.path("ready"))
        os.remove(ready)
        load.send_signal(signal.SIGUSR1)
        fleet.start()
        until("agents back", lambda: os.path.exists(ready), 60, load)
        load.send_signal(signal.SIGTERM)
        d = fleet.result(load, 60)
        if d["welcomed"] != 60 or d["hellos"] < 120 or d["drops"]:
            fail(f"after a restart: {d}")
        work = fleet.load("agents", "--agents", 4, "--plain", "--sweep", ini, "--seconds", 100, "--beat-ms",
                          500)
        doc = json.loads(fleet.run("sweep", "wait", sweep, "--timeout", "90s", "--json"))
        work.send_signal(signal.SIGTERM)
        d = fleet.result(work, 60)
        audit = json.loads(fleet.run("audit", sweep, "--json"))
        if doc["done"] != fleet.points or audit["accepted"] != fleet.points or audit["missing"] or audit["differing"]:
            fail(f"points were lost: {doc} {audit}")
        if d["rows_acked"] != d["rows_sent"] or d["drops"]:
            fail(f"rows were lost: {d}")
        jobs = json.loads(fleet.run("results", "query", "--sql", "SELECT count(*) AS n FROM sweeps", "--json"))
        tasks = json.loads(fleet.run("ls", "tasks", "--json"))["items"]
        if jobs["rows"][0][0] != 1 or sum(i["state"] == "queued" for i in tasks) < 3000:
            fail("the queue is not what it was")
        print("smoke: 60 connections back after kill -9, 4000 points accepted once, 3000 tasks wait")
    finally:
        fleet.end()


def flat(d, prefix=""):
    for k, v in d.items():
        if isinstance(v, dict):
            yield from flat(v, f"{prefix}{k}.")
        elif isinstance(v, (int, float)) and not isinstance(v, bool):
            yield prefix + k, v


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bin", default=os.environ.get("SIOFLEET_BIN"), required="SIOFLEET_BIN" not in os.environ)
    ap.add_argument("--only", default=",".join(ROWS))
    ap.add_argument("--points", type=int, default=200000)
    ap.add_argument("--rounds", type=int, default=5, help="of dispatch")
    ap.add_argument("--queued", type=int, default=1000000)
    ap.add_argument("--running", type=int, default=10000)
    ap.add_argument("--processes", type=int, default=1000)
    ap.add_argument("--connections", type=int, default=10000)
    ap.add_argument("--runs", type=int, default=300)
    ap.add_argument("--seconds", type=int, default=20)
    ap.add_argument("--dir", help="where the stores lie (TMPDIR)")
    ap.add_argument("--others", action="store_true")
    ap.add_argument("--install", action="store_true")
    ap.add_argument("--smoke", action="store_true")
    ap.add_argument("--baseline")
    ap.add_argument("--out")
    a = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: fail("told to stop"))  # what it started ends with it
    a.bin = os.path.abspath(a.bin)
    a.sf = os.path.join(a.bin, "siofleet")
    a.load = os.path.join(a.bin, "tests/bench/fleet_load")
    a.probe = os.path.join(a.bin, "tests/bench/fleet_probe")
    if a.smoke:
        smoke(a)
        return
    result = {"schema": "siofleet.bench_scale/1", "cores": os.cpu_count(), "probes": probe(a)}
    for row in a.only.split(","):
        if row in ROWS:
            print(f"scale.py: {row} ...", file=sys.stderr)
            result[row] = ROWS[row](a)
        else:
            fail(f"--only: {row} is none of {', '.join(ROWS)}")
    if a.others:
        out = subprocess.run([os.path.join(HERE, "others.sh"), *(["--install"] if a.install else []), "1000"], check=True,
                             stdout=subprocess.PIPE, text=True).stdout
        result["others"] = [json.loads(x) for x in out.splitlines()]
    text = json.dumps(result, indent=1) + "\n"
    if a.out:
        open(a.out, "w").write(text)
    sys.stdout.write(text)
    if a.baseline:
        old = dict(flat(json.load(open(a.baseline))))
        for k, v in flat(result):
            if old.get(k):
                print(f"{k:60} {old[k]:>14} {v:>14} {v / old[k]:8.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
