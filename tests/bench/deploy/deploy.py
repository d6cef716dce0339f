#!/usr/bin/env python3
"""`deploy up` on many hosts, again, and `down`: seconds, processor seconds and bytes; JSON on stdout.

    tests/bench/deploy/deploy.py --bin BUILD [--hosts 100] [--parallel 16] [--out FILE]

Needs root: it runs in a network and mount namespace of its own. A host is a real sshd on a port of its own with a data
folder of its own; the deploying program, the coordinator, all sshds and all agents share this machine's cores, which
real hosts do not: cpu_s beside the seconds says how much of the figure that is. /dev/kvm is hidden, as each agent would
try it for half a second of the same processor, and so is root's home with its start-up files. Goals on two idle cores: up <= 60 s, again <= 10 s and 0 bytes.
"""
import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time


class Group:
    """A cgroup (v1 or v2) of all that this bench starts, for its processor seconds: other work does not count."""

    def __init__(self):
        v1 = os.path.isdir("/sys/fs/cgroup/cpuacct")
        self.top = "/sys/fs/cgroup/cpuacct" if v1 else "/sys/fs/cgroup"
        self.dir = f"{self.top}/sf-bench-{os.getpid()}-{time.time_ns()}"
        self.v1 = v1
        try:
            os.mkdir(self.dir)
            open(f"{self.dir}/cgroup.procs", "w").write("0")
        except OSError:
            self.dir = None

    def cpu_s(self):
        if not self.dir:
            return None
        if self.v1:
            return int(open(f"{self.dir}/cpuacct.usage").read()) / 1e9
        return int(open(f"{self.dir}/cpu.stat").readline().split()[1]) / 1e6

    def close(self):
        if self.dir:
            open(f"{self.top}/cgroup.procs", "w").write("0")
            for _ in range(100):
                try:
                    os.rmdir(self.dir)
                    return
                except OSError:
                    time.sleep(0.1)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bin", default=os.environ.get("SIOFLEET_BIN"), required="SIOFLEET_BIN" not in os.environ)
    ap.add_argument("--hosts", type=int, default=100)
    ap.add_argument("--parallel", type=int, default=16)
    ap.add_argument("--out")
    a = ap.parse_args()
    if os.environ.get("SF_BENCH_INNER") != "1":
        os.environ["SF_BENCH_INNER"] = "1"
        os.execvp("unshare", ["unshare", "-n", "-m", "-p", "-f", "--mount-proc", "--kill-child", sys.executable] + sys.argv)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if os.path.exists("/dev/kvm"):
        subprocess.run(["mount", "--bind", "/dev/null", "/dev/kvm"], check=True)
    os.makedirs("/run/sshd", exist_ok=True)
    sf = os.path.join(os.path.abspath(a.bin), "siofleet")
    work = tempfile.mkdtemp(prefix="sf-bench-")
    # an empty home: what a login shell of this machine does at its start is not what is measured
    os.mkdir(f"{work}/home")
    subprocess.run(["mount", "--bind", f"{work}/home", os.path.expanduser("~root")], check=True)
    env = dict(os.environ, XDG_CACHE_HOME=f"{work}/cache", XDG_CONFIG_HOME=f"{work}/config")
    env.pop("SSH_AUTH_SOCK", None)
    procs = []
    group = Group()
    try:
        for k in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{work}/{k}"], check=True)
        key = " ".join(open(f"{work}/host.pub").read().split()[:2])
        with open(f"{work}/sshd_config", "w") as f:
            f.write(f"HostKey {work}/host\nAuthorizedKeysFile {work}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
                    "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\nPermitRootLogin yes\n")
        ini = [f"[fleet]\ncoordinator = tcp://127.0.0.1:7700\nserver_key = {work}/head/keys/coordinator.pub\nuser = root\n"
               f"identity = {work}/user\nknown_hosts = {work}/known_hosts\nparallel = {a.parallel}\n[class c]\ncores = 1\n"]
        with open(f"{work}/known_hosts", "w") as f:
            for i in range(a.hosts):
                f.write(f"[127.0.0.1]:{20000 + i} {key}\n")
                ini.append(f"[host h{i}]\naddress = 127.0.0.1\nport = {20000 + i}\nclass = c\ndata = {work}/hosts/h{i}/data\n")
                procs.append(subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", f"{work}/sshd_config", "-p", str(20000 + i),
                                               "-o", "ListenAddress=127.0.0.1"], stderr=subprocess.DEVNULL))
        open(f"{work}/hosts.ini", "w").write("".join(ini))
        procs.append(subprocess.Popen([sf, "coordinator", "--data", f"{work}/head", "--listen", "tcp://127.0.0.1:7700",
                                       "--ready-file", f"{work}/ready"], env=env, stderr=subprocess.DEVNULL))
        while not os.path.exists(f"{work}/ready"):
            time.sleep(0.05)
        time.sleep(2)  # let the sshds come up

        def used(pids, fields):
            total = 0
            for pid in pids:
                v = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
                total += sum(int(v[i - 3]) for i in fields)
            return total / os.sysconf("SC_CLK_TCK")

        sshds, head = [p.pid for p in procs[:-1]], [procs[-1].pid]

        def run(verb):
            sshd, coord, own = used(sshds, (14, 15, 16, 17)), used(head, (14, 15)), resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu, t, load = group.cpu_s(), time.monotonic(), os.getloadavg()[0]
            r = subprocess.run([sf, "deploy", verb, f"{work}/hosts.ini", "--json", "--timeout", "60s"], env=env,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            t, cpu = time.monotonic() - t, round(group.cpu_s() - cpu, 2) if group.dir else None
            r2 = resource.getrusage(resource.RUSAGE_CHILDREN)
            parts = {"deploy": round(r2.ru_utime + r2.ru_stime - own.ru_utime - own.ru_stime, 2),
                     "sshd_and_its_commands": round(used(sshds, (14, 15, 16, 17)) - sshd, 2),
                     "coordinator": round(used(head, (14, 15)) - coord, 2)}
            d = json.loads(r.stdout)
            for h in d["hosts"]:
                if h["status"] == "failed":
                    print(f"{h['host']}: {h['message']}", file=sys.stderr)
            return {"verb": verb, "seconds": round(t, 2), "cpu_s": cpu, "of_which": parts, "load_before": round(load, 2),
                    "changed": d["changed"], "failed": d["failed"], "bytes_sent": d["bytes_sent"],
                    "slowest_ms": max(h["ms"] for h in d["hosts"])}

        doc = {"schema": "siofleet.bench-deploy/1", "hosts": a.hosts, "parallel": a.parallel, "cores": os.cpu_count(),
               "runs": [run("up"), run("up"), run("status"), run("down")]}
        doc["runs"][0]["verb"], doc["runs"][1]["verb"] = "up, fresh", "up, again"
        text = json.dumps(doc, indent=1)
        if a.out:
            open(a.out, "w").write(text + "\n")
        print(text)
        return 1 if any(r["failed"] for r in doc["runs"]) else 0
    finally:
        for p in procs:
            p.send_signal(signal.SIGKILL)
        for p in procs:
            p.wait()
        try:  # agents that a failed `down` left: this is process 1 of its namespace
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        group.close()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
