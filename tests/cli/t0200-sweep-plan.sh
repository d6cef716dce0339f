#!/usr/bin/env bash
# sweep plan: expands a file without anybody's help.
. "${0%/*}/tap.sh"
plan 21
cd "$work" || exit 1
small_log a.log 4 200

cat >s.ini <<'E'
[sweep]
name = two-by-three
[trace]
logs = a.log
tenants = 2,4
[arch]
iotlb_entries = 64..256:x2
E
run sweep plan s.ini
ok "says how many points, traces and architectures" worked "^points  *6 = 2 traces x 3 architectures"
ok "lists the keys that vary" grep -q "^index  trace  tenants  iotlb_entries" "$work/out"
run sweep plan s.ini --json
ok "is a siofleet.plan/1 document" json 'list(d)[0]=="schema" and d["schema"]=="siofleet.plan/1" and d["points"]==6 and d["traces"]==2'
ok "known is null without a coordinator" json 'd["known"] is None and d["invalid"]==[]'
ok "the last key counts fastest, then the tenants" json '[(r["tenants"],r["arch"]["iotlb_entries"]) for r in d["first"]]==[(2,64),(2,128),(2,256),(4,64),(4,128),(4,256)]'
ok "the recipe id is 64 hex digits and depends on the content" json 'len(d["recipe_id"])==64 and len({r["recipe_id"] for r in d["first"]})==2'
cp "$work/out" one
SIOFLEET_CONNECT=tcp://127.0.0.1:9 SIOFLEET_SERVER_KEY=none SIOFLEET_KEY=none run sweep plan s.ini --json
ok "a coordinator that is configured but not there does not matter" cmp "$work/out" one
mkdir other && cp a.log s.ini other/ && (cd other && "$sf" sweep plan s.ini --json) >"$work/out"
ok "the same content elsewhere has the same id" cmp one "$work/out"

printf '[trace]\nlogs = a.log\ntenants = 2\norder = rr,rand\nburst = 1,3\nseed = 1,2\nreplicate = 1,2\n[arch]\n' >v.ini
run sweep plan v.ini
ok "what varies in the traces has a column" grep -q "^index  trace  tenants  order  burst  seed  replicate$" "$work/out"
ok "so that no two points look alike" sh -c "sed -n '/^first points/,\$p' out | sed -n '3,12s/^ *[0-9]*//p' | sort -u | wc -l | grep -qx 10"
sed -i 's/rr,rand/rand/; s/^burst = .*/burst = 2/; s/^replicate.*//' v.ini
run sweep plan v.ini
ok "and what does not has none" grep -q "^index  trace  tenants  seed$" "$work/out"

sed -i 's/^iotlb_entries.*/iotlb_entries = 64,100\nl3_groups = 2048/' s.ini
run sweep plan s.ini
ok "a point that no engine can run is exit 2 with its line" fails 2 "s.ini:[0-9]*: .*l3_groups"
sed -i 's/^name.*/name = x\nskip_invalid = yes/' s.ini
run sweep plan s.ini --json
ok "skip_invalid lists them instead" json 'd["points"]==4 and [v["index"] for v in d["invalid"]]==[0,1,2,3]'

run sweep plan none.ini
ok "a missing file is one line" fails 1 "none.ini: No such file"
printf '[sweep]\nname = x\n[trace]\nlogs = a.log\n[arch]\nnope = 3\n' >bad.ini
run sweep plan bad.ini
ok "an unknown key is exit 2 with file and line" fails 2 "bad.ini:6: "
printf '[sweep]\nname = x\n[trace]\nlogs = nothing-*.log\n[arch]\n' >bad.ini
run sweep plan bad.ini
ok "a glob without a file is refused" test "$rc" -ne 0
printf '[sweep]\nname = x\n[trace]\nlogs = @collect\n[arch]\n' >bad.ini
run sweep plan bad.ini
ok "logs of a collection that is not there are refused" fails 2 "bad.ini: \[trace\] wants @collect"
printf '[collect]\nnics = 2\0\n[workload]\nkind = script\n' >zero.run
printf '[sweep]\nname = x\n[collect]\nrun = zero.run\n[trace]\nlogs = @collect\n[arch]\n' >bad.ini
run sweep plan bad.ini
ok "a zero byte cuts no RUN.ini: it is exit 2 with file and line" fails 2 "bad.ini:4: zero.run:2: not a text file"
printf '[sweep]\nname = x\n\0[trace]\n' >bad.ini
run sweep plan bad.ini
ok "nor a SWEEP.ini" fails 2 "bad.ini:3: not a text file"
run sweep plan
ok "a missing argument is exit 2" fails 2 "sweep plan"
SIOFLEET_CONNECT=tcp://127.0.0.1:1 run sweep plan bad.ini --wat
ok "an unknown option is exit 2" fails 2 "unknown option"
