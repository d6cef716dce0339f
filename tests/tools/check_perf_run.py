#!/usr/bin/env python3
"""Compare `perf run --rules hypersio --detail` with the reference's figures of the golden cases.

  check_perf_run.py --bin PATH DIR CASE...

Builds each case's trace with `trace build --rules hypersio`, runs every architecture, compares every figure.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile


def differences(want, have, path=""):
    if isinstance(want, dict):
        have = have if isinstance(have, dict) else {}
        return [d for k in want for d in differences(want[k], have.get(k), path + "." + k)]
    return [] if want == have else ["%s: %.80s, the reference has %.80s" % (path, have, want)]


def check(sf, folder, case, work):
    bad = runs = 0
    with open(os.path.join(folder, case + ".json")) as f:
        doc = json.load(f)
    p = doc["build"]["params"]
    trace = os.path.join(work, case + ".trc")
    cmd = [sf, "trace", "build", "--rules", "hypersio", "--tenants", str(p["tenantnum"]),
           "--devices-per-log", str(p["maxdevperlog"]), "--order", p["order"], "--burst", str(p["consec"]), "-o", trace]
    for log in doc["logs"][:len(doc["build"]["result"]["per_log"])]:
        cmd += ["--log", os.path.join(folder, log["file"])]
    subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL)
    for run in doc["runs"]:
        cfg = os.path.join(work, "cfg")
        with open(cfg, "w") as f:
            f.write(run["config_text"])
        q = run["params"]
        keys = {"queue": q["tqueue"], "link_gbps": q["linkbwgbps"], "iotlb_policy": q["iotlbrepl"],
                "inorder": "yes" if q["inorder"] else "no", "salloc": "yes" if q["salloc"] else "no"}
        cmd = [sf, "perf", "run", trace, "--rules", "hypersio", "--cfg", cfg, "--detail", "--json"]
        for k, v in keys.items():
            cmd += ["--arch", "%s=%s" % (k, v)]
        out = subprocess.run(cmd, check=True, capture_output=True).stdout
        want = dict(run["stats"])
        want.pop("error_lines", None)  # messages of the reference's own reader
        runs += 1
        diff = differences(want, json.loads(out)["stats"])
        if diff:
            bad += 1
            print("%s %s: %s" % (case, run["name"], "; ".join(diff[:5])))
    return runs, bad


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bin", required=True)
    ap.add_argument("folder")
    ap.add_argument("case", nargs="+")
    a = ap.parse_args()
    runs = bad = 0
    with tempfile.TemporaryDirectory() as work:
        for case in a.case:
            r, b = check(a.bin, a.folder, case, work)
            runs += r
            bad += b
    print("%d runs, %d differ" % (runs, bad))
    sys.exit(1 if bad or not runs else 0)


main()
