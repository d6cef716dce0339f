#!/usr/bin/env python3
"""Compare the text of a hypersio-perf with samples of the reference's own output, line for line.

  check_output.py --bin PATH GOLDEN

GOLDEN/output holds CASE.build.stdout and CASE.RUN.run.stdout. Message lines are compared after their file:line part.
Closing line: "N passed, N failed".
"""
import argparse
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

import check_golden


def plain(text):
    # not only where a line begins: one message has no LF
    return re.sub(r"(\[(?:INFO|WARN|ERROR)\] +)\S+?:\d+: ", r"\1", text).split("\n")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bin", required=True)
    ap.add_argument("dir")
    a = ap.parse_args()
    binpath, golden = os.path.abspath(a.bin), os.path.abspath(a.dir)
    ok = bad = 0
    with tempfile.TemporaryDirectory(prefix="hsout") as home:

        def compare(name, args):
            nonlocal ok, bad
            want = open(os.path.join(golden, "output", name)).read()
            got = check_golden.call(binpath, home, args)[1].replace(home, "$HYPERSIO_HOME")
            for i, (x, y) in enumerate(zip(plain(want) + ["end of text"], plain(got) + ["end of text"])):
                if x != y:
                    print("FAIL %s line %d: sample %r, now %r" % (name, i + 1, x[:120], y[:120]))
                    bad += 1
                    return
            print("ok  ", name)
            ok += 1

        for f in sorted(glob.glob(os.path.join(glob.escape(golden), "output", "*.build.stdout"))):
            name = os.path.basename(f)
            case = name.split(".")[0]
            j = json.load(open(os.path.join(golden, case + ".json")))
            check_golden.stage_logs(golden, j["logs"], home)
            os.makedirs(os.path.join(home, "build", "hypersio_traces"), exist_ok=True)
            compare(name, j["build"]["args"])
            for r in j["runs"]:
                name = "%s.%s.run.stdout" % (case, r["name"])
                if not os.path.exists(os.path.join(golden, "output", name)):
                    continue
                cfg = os.path.join(home, "x.cfg")
                with open(cfg, "w") as g:
                    g.write(r["config_text"])
                prefix = j["build"]["result"]["prefix"]
                compare(name, [{"@CONFIG@": cfg, "@PREFIX@": prefix}.get(x, x) for x in r["args"]])
    print("%d passed, %d failed" % (ok, bad))
    sys.exit(1 if bad or not ok else 0)


if __name__ == "__main__":
    main()
