#!/usr/bin/env bash
# store put, get, ls, df, verify, gc, pin: what goes, what stays and why, and what a cut-off command leaves to the next.
. "${0%/*}/../cli/tap.sh"
plan 51
cd "$work" || exit 1
small_log a.log 4 4000
small_log b.log 4 3000
cat >s.ini <<'E'
[sweep]
name = s
[trace]
logs = a.log
tenants = 2
[arch]
iotlb_entries = 64..512:x2
E
head -c 5000000 /dev/urandom >five
: >none
printf x >one
kind_of() { "$sf" store ls --json | python3 -c 'import json,sys; print([a["kind"]+" "+a["need"] for a in json.load(sys.stdin)["items"] if a["id"]==sys.argv[1]][0])' "$1"; }
first_id() { "$sf" store ls --json | python3 -c 'import json,sys; print([a["id"] for a in json.load(sys.stdin)["items"] if a[sys.argv[1]]==sys.argv[2]][0])' "$1" "$2"; }
gone() { ! "$sf" store get "$1" -o "x.$1" 2>/dev/null; }

run store ls --connect tcp://127.0.0.1:9 --server-key nosuch --key nosuch
ok "a key that is not there: exit 1" fails 1 "nosuch"
run store get 12345678
ok "get wants -o: exit 2" fails 2 "-o"
run store put
ok "put wants a file: exit 2" fails 2 "."
ok "a fleet" fleet_start 1

# -- put and get
run store put five none one
ok "files of 5 MB, of nothing and of one byte" worked
read -r five none one <<<"$(tr '\n' ' ' <"$work/out")"
for f in five none one; do
  run store get "${!f}" -o "got.$f"
  ok "$f comes back" cmp "$f" "got.$f"
  "$sf" store get "${!f}" -o - >pipe.out 2>/dev/null
  ok "$f on standard output" cmp "$f" pipe.out
done
run store get "${five:0:12}" -o got.prefix --json
ok "by a unique prefix, with a document" json 'd["schema"]=="siofleet.get/1" and d["size_b"]==5000000 and d["kind"]=="file" and d["path"]=="got.prefix"'
ok "nothing is left beside it" sh -c '! ls -d *.part 2>/dev/null'
run store get "$five" -o got.five
ok "an existing file stays: exit 1" fails 1 "got.five: is there already"
run store get "$five" -o got.five --force
ok "--force replaces it" worked
run store get ffffffff -o nosuch
ok "an id that is not there: exit 1" fails 1 "ffffffff"
run store get "${five:0:7}" -o nosuch
ok "a prefix of 7: exit 2" fails 2 "${five:0:7}"
run store get "$five" -o nosuch/dir/file
ok "a folder that is not there: exit 1" fails 1 "nosuch/dir"
run store put a.log --kind sweep
ok "an unknown kind: exit 2" fails 2 "--kind"
run store put nosuchfile
ok "a file that is not there: exit 1" fails 1 "nosuchfile"
run store put five --json
ok "again: the same id" json 'd["schema"]=="siofleet.put/1" and d["items"][0]["id"]=="'"$five"'"'

# -- what needs what
run store put --kind log b.log
b=$(cat "$work/out")
run sweep run s.ini
ok "a sweep" worked
log=$(first_id name a.log)
trace=$(first_id kind trace)
ok "its log is needed by what was computed" test "$(kind_of "$log")" = "log provenance"
ok "so is its trace" test "$(kind_of "$trace")" = "trace provenance"
ok "a log of no sweep is needed by nothing" test "$(kind_of "$b")" = "log unreferenced"
run store gc --dry-run
ok "what is new stays" worked "would remove 0 artefacts"
run store gc --older 0s --dry-run
ok "a dry run says what would go" worked "remove ${b:0:16}.*nothing needs it"
ok "and what stays, and why" grep -q "keep   ${trace:0:16}.*results were computed from it; can be built again" "$work/out"
run store gc --older 0s --dry-run --json
ok "as a document, too" json 'd["schema"]=="siofleet.gc/1" and d["dry_run"] and d["done"] is None and d["remove"]==4 and d["keep"]==2 and {i["code"] for i in d["items"]}=={"UNREFERENCED","PROVENANCE","REBUILDABLE"}'
ok "it removed nothing" test "$(kind_of "$b")" = "log unreferenced"
run store pin "$one"
ok "one is pinned" worked "is kept"
run store gc --older 0s --json
ok "gc removes the others that nothing needs" json 'd["done"]["removed"]==3 and d["done"]["freed_b"]>5000000'
ok "they are gone" gone "$five"
ok "what is pinned stays" test "$(kind_of "$one")" = "file pinned"
run store unpin "$one"
run store gc --older 0s
ok "unpinned it goes" worked "removed 1 artefacts"
run store gc --older 0s --rebuildable
ok "told so, a trace that can be built again goes" gone "$trace"
sed 's/64..512:x2/16,32/; s/name = s/name = again/' s.ini >again.ini
run sweep run again.ini --csv again.csv
ok "a sweep over it has it built again" worked
"$sf" perf sweep again.ini --csv >want.csv 2>/dev/null
ok "with the right results" cmp again.csv want.csv
sed 's/name = s/name = slow\npace_ms = 200/; s/64..512:x2/16,32\nqueue = 2,4,8/' s.ini >slow.ini
id=$("$sf" sweep submit slow.ini)
run store gc --older 0s --also-provenance --rebuildable --json
ok "what an open sweep needs stays, whatever is said" json '{i["code"] for i in d["items"] if i["action"]=="keep"}=={"WORK"} and d["keep"]>=2'
run sweep wait "$id" --timeout 60s
ok "and the sweep ends well" worked
run store gc --older 0s --also-provenance
ok "then it may go, when told" gone "$log"
run results query --sweep s --csv
ok "rows stay" test "$(wc -l <"$work/out")" -eq 5

# -- df, verify
"$sf" store put five a.log >/dev/null 2>&1
run store df --json
ok "df counts" json 'd["schema"]=="siofleet.df/1" and d["store"]["used_b"]>5000000 and d["store"]["free_b"]>0 and d["store"]["disk_b"]>=d["store"]["free_b"] and d["store"]["by_kind"]["file"]["artefacts"]>=1 and d["store"]["cap_b"] is None'
run store df
ok "for people" worked "free on its disk"
run store verify --json
ok "verify: all is well" json 'd["schema"]=="siofleet.fsck/1" and d["bad"]==[] and d["artefacts"]>=2 and d["bytes"]>5000000'
run store verify --data fleet/c
ok "also on the folder" worked "store: not looked at"
flip "fleet/c/cas/${five:0:2}/$five" 3000000
run store verify --data fleet/c --json
ok "a flipped bit: exit 4, with the chunk" json '[(b["id"],b["chunk"]) for b in d["bad"]]==[("'"$five"'",2)]'
run store verify "${five:0:10}"
ok "so says the coordinator" test "$rc" -eq 4
ok "which moves it aside" until_ok 10 test -f "fleet/c/damaged/$five"
run store put five
ok "and takes a good copy" cmp five "fleet/c/cas/${five:0:2}/$five"
run store gc
ok "gc then drops the damaged one" test ! -e "fleet/c/damaged/$five"
