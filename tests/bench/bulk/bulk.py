#!/usr/bin/env python3
"""Large artefacts: siofleet beside scp, rsync and iperf3 in the same run; JSON on stdout.

    tests/bench/bulk/bulk.py --bin BUILD [--mib 1024] [--pairs 3] [--only tmpfs,text,net,heartbeat,agent,unchanged]
                             [--out FILE] [--baseline FILE [--worse 20]]

tmpfs      incompressible bytes from a coordinator's store into a file, both on tmpfs, over loopback: the whole command `store get`,
           encrypted and hashed; scp and rsync (over ssh, whole files) of the same bytes in turn, so that a drift of the machine
           meets all alike. Goal: 0.4 GB/s, 3 times scp and rsync.
text       the same command for a text log (tests/data/real-log), counted uncompressed. Goal: 0.6 GB/s.
net        two namespaces on tbf links of 1 and 2.5 Gbit/s, beside iperf3; processor seconds a GB of both ends. Goal: 0.9 of iperf3.
heartbeat  round trips of 200 bytes beside a put that fills a tbf link. Goal: p99 50 ms at 100 Mbit/s, 2 s at 1 Mbit/s.
agent      an agent's own beats, results and cancels (`ls agents`: answers) while it fetches and sends as much as a tbf link
           bears, each way. The same goals.
unchanged  an offer of what is there. Goal: 5 ms, no payload.
memory     of either end under all of it. Goal: 64 MiB a stream.

--baseline compares with a file of --out from the same machine: exit 1 when a ratio got worse by more than --worse percent.
Without root, net, heartbeat and agent are left out and say so. Other work on the machine spoils a run: the load stands beside each figure.
"""
import argparse
import glob
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SRC = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
TICK = os.sysconf("SC_CLK_TCK")
ROWS = ["tmpfs", "text", "net", "heartbeat", "agent", "unchanged"]


def die(text):
    sys.exit(f"bulk.py: {text}")


def wait_for(what, test, seconds=30):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            die(f"{what}: not ready")
        time.sleep(0.02)


def timed(argv, env=None):
    """Seconds and processor seconds of a command."""
    t = time.monotonic()
    p = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    err = p.stderr.read()
    _, status, ru = os.wait4(p.pid, 0)
    wall = time.monotonic() - t
    p.returncode = status
    if status:
        die(f"{' '.join(argv[:4])}: {err.decode(errors='replace').strip()[-300:]}")
    return wall, ru.ru_utime + ru.ru_stime, ru.ru_maxrss / 1024


def cpu_of(pid):
    """Processor seconds of a process and of its children that ended."""
    f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(int(x) for x in f[11:15]) / TICK


def peak_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return None


class Bench:
    def __init__(self, a):
        self.a = a
        self.sf = os.path.join(os.path.abspath(a.bin), "siofleet")
        self.probe = os.path.join(os.path.abspath(a.bin), "tests/bench/bulk_probe")
        self.work = tempfile.mkdtemp(prefix="sf-bulk-", dir="/dev/shm")
        self.procs = []
        self.spaces = []
        self.memory = {"coordinator": 0, "get": 0}

    def popen(self, argv, **kw):
        p = subprocess.Popen(argv, **kw)
        self.procs.append(p)
        return p

    def end(self, p):
        p.send_signal(signal.SIGTERM)
        try:
            p.wait(15)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
        self.procs.remove(p)

    def close(self):
        for p in list(reversed(self.procs)):
            self.end(p)
        for s in self.spaces:
            subprocess.run(["ip", "netns", "del", s], check=False)
        shutil.rmtree(self.work, ignore_errors=True)

    def coordinator(self, name, host="127.0.0.1", prefix=(), args=()):
        d = f"{self.work}/{name}"
        ready = f"{self.work}/{name}.ready"
        p = self.popen([*prefix, self.sf, "coordinator", "--data", d, "--listen", f"tcp://{host}:*", "--ready-file", ready, *args],
                       stderr=open(f"{self.work}/{name}.log", "w"))
        wait_for("coordinator", lambda: os.path.exists(ready) or p.poll() is not None)
        if p.poll() is not None:
            die(open(f"{self.work}/{name}.log").read())
        env = dict(os.environ, SIOFLEET_CONNECT=json.load(open(ready))["endpoint"],
                   SIOFLEET_SERVER_KEY=f"{d}/keys/coordinator.pub", SIOFLEET_KEY=f"{d}/keys/admin")
        return p, env

    def put(self, env, path, prefix=()):
        doc = subprocess.run([*prefix, self.sf, "store", "put", path, "--json"], env=env, check=True, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL).stdout
        d = json.loads(doc)
        return d["id"] if "id" in d else d["items"][0]["id"]

    def get(self, coord, env, art, size, prefix=()):
        c = cpu_of(coord.pid)
        out = f"{self.work}/out"
        wall, cpu, rss = timed([*prefix, self.sf, "store", "get", art, "-o", out, "--force"], env)
        self.memory["get"] = max(self.memory["get"], rss)
        self.memory["coordinator"] = max(self.memory["coordinator"], peak_mib(coord.pid))
        if os.path.getsize(out) != size:
            die("store get: short")
        os.unlink(out)
        return wall, cpu + cpu_of(coord.pid) - c

    # ---- rows

    def sshd(self):
        d = f"{self.work}/ssh"
        os.mkdir(d, 0o700)
        for k in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{d}/{k}"], check=True)
        shutil.copy(f"{d}/user.pub", f"{d}/authorized")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        os.makedirs("/run/sshd", exist_ok=True)
        open(f"{d}/conf", "w").write(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host\nAuthorizedKeysFile {d}/authorized\nStrictModes no\n"
            f"PidFile {d}/pid\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n")
        server = self.popen(["/usr/sbin/sshd", "-D", "-f", f"{d}/conf"], stderr=subprocess.DEVNULL)

        def up():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0
        wait_for("sshd", up)
        return server, port, ["-i", f"{d}/user", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
                      "LogLevel=ERROR"]

    def tmpfs(self):
        size = self.a.mib << 20
        path = f"{self.work}/random"
        with open(path, "wb") as f:
            for _ in range(self.a.mib):
                f.write(os.urandom(1 << 20))
        coord, env = self.coordinator("c")
        art = self.put(env, path)
        server, port, opts = self.sshd()
        user = os.environ.get("USER") or "root"
        out = f"{self.work}/copy"

        def by_ssh(argv):
            c = cpu_of(server.pid)
            wall, cpu, _ = timed([*argv, f"{user}@127.0.0.1:{path}", out])
            os.unlink(out)
            time.sleep(0.3)  # the server's end of it is counted once it is reaped
            return wall, cpu + cpu_of(server.pid) - c

        def scp(cipher=()):
            return by_ssh(["scp", "-q", "-P", str(port), *cipher, *opts])

        def rsync():
            return by_ssh(["rsync", "-W", "--inplace", "-e", f"ssh -p {port} " + " ".join(opts)])

        kinds = {"siofleet": lambda: self.get(coord, env, art, size), "scp": scp,
                 "scp_aes": lambda: scp(["-c", "aes256-gcm@openssh.com"]), "rsync": rsync}
        pairs = []
        for i in range(self.a.pairs):
            order = list(kinds)[i % 4:] + list(kinds)[:i % 4]
            row = {"load": round(os.getloadavg()[0], 1)}
            for k in order:
                wall, cpu = kinds[k]()
                row[k] = {"gb_s": round(size / wall / 1e9, 3), "cpu_s_gb": round(cpu / size * 1e9, 2)}
            pairs.append(row)

        def ratio(k):
            return round(statistics.median(p["siofleet"]["gb_s"] / p[k]["gb_s"] for p in pairs), 2)
        r = {"bytes": size, "gb_s": statistics.median(p["siofleet"]["gb_s"] for p in pairs),
             "best_gb_s": max(p["siofleet"]["gb_s"] for p in pairs), "to_scp": ratio("scp"), "to_scp_aes": ratio("scp_aes"),
             "to_rsync": ratio("rsync"), "pairs": pairs}
        self.end(coord)
        return r

    def text(self):
        logs = sorted(glob.glob(os.path.join(SRC, "tests/data/real-log/*24nic*.zst")))
        size = self.a.mib << 20
        path = f"{self.work}/text"
        # not through this process: what it holds would count as the memory of its children
        with open(path, "wb") as f:
            while f.seek(0, 2) < size:
                subprocess.run(["zstd", "-dcq", *logs], check=True, stdout=f)
            f.truncate(size)
        coord, env = self.coordinator("t")
        art = self.put(env, path)
        os.unlink(path)
        runs = []
        for _ in range(self.a.pairs):
            load = round(os.getloadavg()[0], 1)
            wall, cpu = self.get(coord, env, art, size)
            runs.append({"gb_s": round(size / wall / 1e9, 3), "cpu_s_gb": round(cpu / size * 1e9, 2), "load": load})
        self.end(coord)
        return {"bytes": size, "gb_s": statistics.median(r["gb_s"] for r in runs), "best_gb_s": max(r["gb_s"] for r in runs),
                "runs": runs}

    def link(self, rate, burst):
        """Two namespaces with one shaped link; the first has 10.98.0.1."""
        for s in self.spaces:
            subprocess.run(["ip", "netns", "del", s], check=False)
        a, b = self.spaces = [f"sfb{os.getpid()}a", f"sfb{os.getpid()}b"]
        for s in self.spaces:
            subprocess.run(["ip", "netns", "add", s], check=True)
        subprocess.run(["ip", "link", "add", "l0", "netns", a, "type", "veth", "peer", "name", "l0", "netns", b], check=True)
        for n, s in enumerate(self.spaces):
            for c in (f"addr add 10.98.0.{n + 1}/24 dev l0", "link set lo up", "link set l0 up"):
                subprocess.run(["ip", "-n", s, *c.split()], check=True)
            subprocess.run(["tc", "-n", s, "qdisc", "add", "dev", "l0", "root", "tbf", "rate", rate, "burst", burst, "latency",
                            "100ms"], check=True)
        return ["ip", "netns", "exec", a], ["ip", "netns", "exec", b]

    def net(self):
        if os.geteuid():
            return {"skipped": "needs root"}
        rows = []
        for rate, burst, mib in (("1gbit", "512k", min(self.a.mib, 512)), ("2500mbit", "1m", self.a.mib)):
            here, there = self.link(rate, burst)
            size = mib << 20
            path = f"{self.work}/net"
            with open(path, "wb") as f:
                for _ in range(mib):
                    f.write(os.urandom(1 << 20))
            coord, env = self.coordinator(f"n{rate}", "10.98.0.1", here)
            art = self.put(env, path, here)
            server = self.popen([*here, "iperf3", "-s"], stdout=subprocess.DEVNULL)
            time.sleep(0.3)
            runs = []
            for i in range(self.a.pairs):
                load = round(os.getloadavg()[0], 1)
                doc = json.loads(subprocess.run([*there, "iperf3", "-c", "10.98.0.1", "-R", "-t", "4", "-J"], check=True,
                                                stdout=subprocess.PIPE).stdout)
                iperf = doc["end"]["sum_received"]["bits_per_second"] / 8e9
                wall, cpu = self.get(coord, env, art, size, there)
                runs.append({"gb_s": round(size / wall / 1e9, 4), "iperf3_gb_s": round(iperf, 4),
                             "ratio": round(size / wall / 1e9 / iperf, 3), "cpu_s_gb": round(cpu / size * 1e9, 2), "load": load})
            self.end(server)
            self.end(coord)
            os.unlink(path)
            rows.append({"link": rate, "bytes": size, "to_iperf3": statistics.median(r["ratio"] for r in runs),
                         "cpu_s_gb": statistics.median(r["cpu_s_gb"] for r in runs), "runs": runs})
        return rows

    PING = ("import socket,sys,time,json\n"
            "c=socket.create_connection(('10.98.0.1',7999));c.setsockopt(6,1,1);t=[];end=time.time()+float(sys.argv[1])\n"
            "while time.time()<end:\n"
            " a=time.time();c.sendall(b'x'*200);n=0\n"
            " while n<200:n+=len(c.recv(200))\n"
            " t.append((time.time()-a)*1000);time.sleep(0.02)\n"
            "t.sort();print(json.dumps({'n':len(t),'ms_p50':round(t[len(t)//2],1),'ms_p99':round(t[len(t)*99//100],1),"
            "'ms_max':round(t[-1],1)}))\n")
    ECHO = ("import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind(('10.98.0.1',7999));s.listen(4)\n"
            "while 1:\n c,_=s.accept();c.setsockopt(6,1,1)\n while 1:\n  d=c.recv(200)\n  if not d:break\n  c.sendall(d)\n")

    def heartbeat(self):
        if os.geteuid():
            return {"skipped": "needs root"}
        rows = []
        for rate, burst, mib in (("100mbit", "64k", 400), ("1mbit", "8k", 8)):
            here, there = self.link(rate, burst)
            path = f"{self.work}/hb"
            with open(path, "wb") as f:
                for _ in range(mib):
                    f.write(os.urandom(1 << 20))
            coord, env = self.coordinator(f"h{rate}", "10.98.0.1", here)
            echo = self.popen([*here, sys.executable, "-c", self.ECHO])
            time.sleep(0.5)

            def ping(seconds):
                return json.loads(subprocess.run([*there, sys.executable, "-c", self.PING, str(seconds)], check=True,
                                                 stdout=subprocess.PIPE).stdout)
            idle = ping(3)
            put = self.popen([*there, self.sf, "store", "put", path], env=env, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)

            def bytes_in():
                return int(subprocess.run([*here, "cat", "/sys/class/net/l0/statistics/rx_bytes"], check=True,
                                          stdout=subprocess.PIPE).stdout)
            b0 = bytes_in()
            wait_for("put", lambda: bytes_in() - b0 > 200000, 60)
            b0, t0 = bytes_in(), time.monotonic()
            busy = ping(8)
            busy["link_mbit_s"] = round((bytes_in() - b0) * 8e-6 / (time.monotonic() - t0), 2)
            if put.poll() is not None:
                die("heartbeat: the put was over before the round trips")
            busy["load"] = round(os.getloadavg()[0], 1)
            for p in (put, echo, coord):
                self.end(p)
            rows.append({"link": rate, "idle": idle, "beside_put": busy})
        return rows

    def agent(self):
        if os.geteuid():
            return {"skipped": "needs root"}
        rows = []
        for rate, burst, mib, beat_ms, seconds in (("100mbit", "64k", 400, 20, 20), ("1mbit", "8k", 12, 50, 40)):
            here, there = self.link(rate, burst)
            d = f"{self.work}/a{rate}"
            coord, env = self.coordinator(f"a{rate}", "10.98.0.1", here, ("--heartbeat-ms", str(beat_ms)))
            subprocess.run([self.sf, "keys", "new", f"{d}.key", "--role", "agent", "--name", "n"], check=True)
            subprocess.run([self.sf, "keys", "allow", "--data", d, f"{d}.key.pub"], check=True, stdout=subprocess.DEVNULL)
            agent = self.popen([*there, self.sf, "agent", "--data", f"{d}-agent", "--connect", env["SIOFLEET_CONNECT"],
                                "--server-key", env["SIOFLEET_SERVER_KEY"], "--key", f"{d}.key", "--name", "n", "--cores", "2",
                                "--ready-file", f"{d}.up"], stderr=open(f"{d}-agent.log", "w"))
            wait_for("agent", lambda: os.path.exists(f"{d}.up"))

            def sf(*argv, **kw):
                return self.popen([*here, self.sf, *argv], env=env, cwd=self.work, stdout=subprocess.DEVNULL,
                                  stderr=open(f"{d}-{argv[0]}.log", "w"), **kw)

            def ask(*argv):
                return json.loads(subprocess.run([*here, self.sf, *argv, "--json"], env=env, cwd=self.work, check=True,
                                                 stdout=subprocess.PIPE).stdout)

            def octets():
                return [int(subprocess.run([*here, "cat", f"/sys/class/net/l0/statistics/{w}_bytes"], check=True,
                                           stdout=subprocess.PIPE).stdout) for w in ("tx", "rx")]

            def commands():
                return sum(t["kind"] == "exec" and t["state"] == "running" for t in ask("ls", "tasks")["items"])

            def answers(seconds):
                until, others = time.monotonic() + seconds, commands()
                while time.monotonic() < until:
                    p = sf("exec", "--", "sleep", "1000")
                    wait_for("a command to cancel", lambda: commands() > others)
                    p.send_signal(signal.SIGINT)
                    p.wait()
                    self.procs.remove(p)
                    wait_for("its end", lambda: commands() == others)
                time.sleep(32 * beat_ms / 1000)
                return ask("ls", "agents")["items"][0]["answers"]

            # results: points that take 100 ms each
            subprocess.run(["sh", "-c", f"zstd -dcq {SRC}/tests/data/real-log/*.zst | head -n 20000 >{self.work}/a.log"], check=True)
            with open(f"{self.work}/paced.ini", "w") as f:
                f.write("[sweep]\nname = paced\npace_ms = 100\n[trace]\nlogs = a.log\n[arch]\nqueue = 1..4000:+1\n")
            sweep = sf("sweep", "run", "paced.ini")
            idle = answers(8)
            # both ways: a file of a command, and the kernel of a collection
            for name in ("up", "down"):
                with open(f"{self.work}/{name}", "wb") as f:
                    for _ in range(mib):
                        f.write(os.urandom(1 << 20))
            with open(f"{self.work}/fetch.ini", "w") as f:
                f.write("[collect]\naccel = tcg\nkernel = down\ninitrd = a.log\nqemu = a.log\n[workload]\nkind = iperf3\n")
            busy = [sf("exec", "--copy", f"{self.work}/up", "--", "true"), sf("collect", "fetch.ini")]
            before = octets()
            wait_for("both ways", lambda: all(n - b > mib << 14 for n, b in zip(octets(), before)), 60)
            before, t0 = octets(), time.monotonic()
            both = answers(seconds)
            spent = time.monotonic() - t0
            both["link_mbit_s"] = dict(zip(("to_agent", "from_agent"), (round((n - b) * 8e-6 / spent, 2)
                                                                        for n, b in zip(octets(), before))))
            both["load"] = round(os.getloadavg()[0], 1)
            for p in (sweep, *busy):
                if p.poll() is not None:
                    die(f"agent: {p.args[-1]} was over before the end: " +
                        "".join(open(f"{d}-{k}.log").read()[-300:] for k in ("sweep", "exec", "collect")))
            for p in (sweep, *busy, agent, coord):
                self.end(p)
            rows.append({"link": rate, "idle": idle, "both_ways": both})
        return rows

    def unchanged(self):
        path = f"{self.work}/same"
        with open(path, "wb") as f:
            for _ in range(64):
                f.write(os.urandom(1 << 20))
        coord, env = self.coordinator("u")
        self.put(env, path)
        r = json.loads(subprocess.run([self.probe, "unchanged", path, "200"], env=env, check=True,
                                      stdout=subprocess.PIPE).stdout)
        r["load"] = round(os.getloadavg()[0], 1)
        self.end(coord)
        return r


def ratios(d):
    """What can be compared between runs: ratios, not speeds."""
    out = {}
    for k in ("to_scp", "to_scp_aes", "to_rsync"):
        out[k] = d.get("tmpfs", {}).get(k)
    for row in d.get("net", []) if isinstance(d.get("net"), list) else []:
        out["to_iperf3 " + row["link"]] = row["to_iperf3"]
    core = d["machine"].get("blake2b_gbps")
    for k in ("tmpfs", "text"):
        if d.get(k) and core:
            out[k + " to a core's BLAKE2b"] = d[k]["gb_s"] / core
    return {k: v for k, v in out.items() if v}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bin", default=os.environ.get("SIOFLEET_BIN"), required="SIOFLEET_BIN" not in os.environ)
    ap.add_argument("--mib", type=int, default=1024)
    ap.add_argument("--pairs", type=int, default=3)
    ap.add_argument("--only", default=",".join(ROWS))
    ap.add_argument("--out")
    ap.add_argument("--baseline")
    ap.add_argument("--worse", type=float, default=20)
    a = ap.parse_args()
    rows = a.only.split(",")
    if set(rows) - set(ROWS):
        ap.error(f"--only: one or more of {','.join(ROWS)}")
    b = Bench(a)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        d = {"schema": "siofleet.bench_bulk/1", "cores": os.cpu_count(),
             "machine": json.loads(subprocess.run([b.probe, "machine"], check=True, stdout=subprocess.PIPE).stdout)}
        for k in rows:
            d[k] = getattr(b, k)()
        d["memory_mib"] = {k: round(v, 1) for k, v in b.memory.items() if v}
    finally:
        b.close()
    text = json.dumps(d, indent=1) + "\n"
    sys.stdout.write(text)
    if a.out:
        open(a.out, "w").write(text)
    if a.baseline:
        old, new = ratios(json.load(open(a.baseline))), ratios(d)
        bad = [k for k in old if k in new and new[k] < old[k] * (1 - a.worse / 100)]
        for k in bad:
            print(f"bulk.py: {k}: {new[k]:.2f}, was {old[k]:.2f}", file=sys.stderr)
        if bad:
            sys.exit(1)


if __name__ == "__main__":
    main()
