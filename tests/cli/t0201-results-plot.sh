#!/usr/bin/env bash
# results plot --from: a picture and a page from a file of results, without a fleet.
. "${0%/*}/tap.sh"
plan 18
cd "$work" || exit 1
{
  echo "name,index,tenants,queue,iotlb_entries,l2_groups,l3_groups,pf_entries,status,mbps,util_ppm"
  i=0
  for t in 4 24 120; do
    for q in "1,64,1,1,0" "32,64,32,64,8"; do
      echo "demo,$i,$t,$q,done,$((20000 * i + 1000)),$((90000 * i))"
      i=$((i + 1))
    done
  done
} >r.csv

run results plot --from r.csv --x tenants --y util_ppm -o p.svg
ok "draws a picture" test "$rc" -eq 0 -a -s p.svg
ok "stdout stays empty" test ! -s "$work/out"
ok "names what tells the lines apart" grep -q "6 points in 2 series by design" "$work/err"
ok "is well-formed XML" python3 -c 'import xml.dom.minidom; xml.dom.minidom.parse("p.svg")'
ok "has units and series" grep -q "link utilisation (%)" p.svg
ok "names the presets" sh -c 'grep -q ">default<" p.svg && grep -q ">hypertrio<" p.svg'
run results plot --from r.csv --x tenants --y util_ppm -o p.svg
ok "an existing file is not replaced" fails 1 "p.svg: "
cp p.svg first.svg
run results plot --from r.csv --x tenants --y util_ppm -o p.svg --force
ok "--force replaces it, with the same bytes" cmp p.svg first.svg
run results plot --from r.csv --x tenants --y mbps --series queue -o p.html --title "<b>T & U"
ok "draws a page" grep -q "<h1>&lt;b&gt;T &amp; U</h1>" p.html
ok "the page loads nothing" sh -c '! grep -q "://" p.html && ! grep -qi "<script" p.html'

run results plot --from r.csv --x nope --y mbps -o q.svg
ok "an unknown column is exit 2 and the known ones are named" fails 2 "no column 'nope'; there are: name index tenants"
run results plot --from r.csv --x tenants --y mbps -o q.png
ok "another ending is exit 2" fails 2 "neither with .svg nor with .html"
run results plot --x tenants --y mbps -o q.svg
ok "neither --sweep nor --from is exit 2" fails 2 "sweep"
run results plot --from r.csv --y mbps -o q.svg
ok "a missing --x is exit 2" fails 2 "x"
run results plot --from r.csv --where tenants=4 --x tenants --y mbps -o q.svg
ok "--from with --where is exit 2: it would be ignored" fails 2 "from"
printf 'a,b\n1\n' >bad.csv
run results plot --from bad.csv --x a --y b -o q.svg
ok "a broken file is named with its line" fails 1 "bad.csv:2: "
: >empty.csv
run results plot --from empty.csv --x a --y b -o q.svg
ok "an empty file is refused" fails 1 "empty.csv: empty"
ok "nothing half-made is left" test "$(ls | grep -c '^q\|^\.\|tmp')" -eq 0
