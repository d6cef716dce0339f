#!/usr/bin/env bash
# vm images and vm clean: what is kept in the cache, and that only what nobody uses goes.
. "${0%/*}/../cli/tap.sh"
plan 15
export XDG_CACHE_HOME=$work/cache XDG_DATA_HOME=$work/data
c=$XDG_CACHE_HOME/siofleet
run vm images --json
ok "an empty cache: the scripts alone" json 'd["schema"]=="siofleet.images/1" and [i["kind"] for i in d["items"]]==["scripts"] and d["items"][0]["current"] is True'
mkdir -p "$c/qemu/aaaa1111" "$c/image/bbbb2222" "$c/disk/cccc3333" "$c/qemu/work" "$c/qemu/source" "$c/kit/.x.1"
head -c 300000 /dev/zero >"$c/image/bbbb2222/base.cpio"
ln -s / "$c/image/bbbb2222/root"
# this one is current: the recipe of the script that would make it
echo "recipe=$(sha256sum <"$src/collect/guest/disk.sh" | cut -c1-64)" >"$c/disk/cccc3333/manifest"
run vm images --json
ok "each with kind, size and whether it is current" json '{(i["kind"],i["id"]): i["current"] for i in d["items"] if i["kind"]!="scripts"}=={("qemu","aaaa1111"):False,("image","bbbb2222"):False,("disk","cccc3333"):True,("source","qemu"):False,("unfinished","qemu"):False,("unfinished","kit"):False}'
ok "links are not followed" json '300000 <= [i["bytes"] for i in d["items"] if i["id"]=="bbbb2222"][0] < 600000'
exec 8>"$c/qemu/lock"
flock 8
run vm images --json
ok "a build that goes on is not listed" json '("unfinished","qemu") not in [(i["kind"],i["id"]) for i in d["items"]]'
exec 8>&-

run vm clean --dry-run
ok "--dry-run shows and keeps" sh -c "[ $rc -eq 0 ] && grep -q bbbb2222 $work/out && [ -d $c/image/bbbb2222 ]"
run vm clean cccc
ok "a current one is refused by its id" fails 2 'cccc: a collection would take it'
run vm clean dddd
ok "an unknown id is refused" fails 1 'dddd: nothing of that id'
run vm clean aaaa --json
ok "one by its id" json '[i["id"] for i in d["items"]]==["aaaa1111"]'
ok "it is gone, the others are not" test ! -e "$c/qemu/aaaa1111" -a -e "$c/image/bbbb2222"

fake=$SIOFLEET_BIN/tests/collect/fake_qemu
touch "$work/kernel" "$work/initrd" "$work/script"
printf '[collect]\nqemu = %s\nkernel = kernel\ninitrd = initrd\n[workload]\nkind = script\nscript = script\n' "$fake" >"$work/run.ini"
FAKE_QEMU=mute start hang "$sf" collect --local "$work/run.ini" -o "$work/o"
until_ok 30 pgrep -f "^$fake"
run vm clean
ok "nothing goes while a collection runs" fails 1 'a collection is running'
ok "really nothing" test -e "$c/image/bbbb2222"
kill -TERM "$pid"
wait "$pid"
run vm clean
ok "then all that is not current goes" sh -c "[ $rc -eq 0 ] && [ ! -e $c/image/bbbb2222 ] && [ ! -e $c/qemu/work ] && [ ! -e $c/qemu/source ]"
ok "what is current stays" test -e "$c/disk/cccc3333/manifest"
run vm clean --all
ok "--all takes it too" test ! -e "$c/disk/cccc3333" -a -z "$(ls "$c/kit")"
ok "what a link names is untouched" test -d /etc
