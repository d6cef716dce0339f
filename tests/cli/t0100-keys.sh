#!/usr/bin/env bash
# keys new, allow, revoke, ls: forms, modes, exit codes.
. "${0%/*}/tap.sh"
plan 26
cd "$work" || exit 1

run keys new n1 --role agent --name n1
ok "new: exit 0, nothing on stdout" sh -c "[ $rc -eq 0 ] && [ ! -s out ]"
ok "the secret is mode 0600" test "$(stat -c %a n1)" = 600
ok "the public half is one line of the promised form" \
  grep -qxE 'siofleet-key 1 agent n1 [0-9a-zA-Z.:+=^!/*?&<>()[{}@%$#-]{40}|siofleet-key 1 agent n1 [^ ]{40}' n1.pub
ok "and nothing else" test "$(wc -l <n1.pub)" -eq 1
run keys new n1 --role agent --name n1
ok "an existing file is left alone: exit 1" fails 1 "n1"
run keys new x --role king --name x
ok "unknown role: exit 2" fails 2 "king"
run keys new x --role user
ok "no name: exit 2" fails 2 "--name"
run keys new x --role user --name "a/b"
ok "a bad name: exit 2" fails 2 "a/b"
ok "and no file" test ! -e x -a ! -e x.pub
run keys new --role user --name x
ok "no file: exit 2" fails 2 "."

run keys allow --data d n1.pub
ok "allow: a folder that is not there is exit 1" fails 1 "d: No such file"
ok "and is not made" test ! -e d
run keys ls --data d
ok "ls: nor is it an empty list" fails 1 "d: No such file"
mkdir d
run keys ls --data d --json
ok "an empty list is a list" json 'd["schema"]=="siofleet.keys/1" and d["items"]==[]'
run keys allow --data d n1.pub
ok "allow: exit 0" worked
run keys allow --data d n1.pub
ok "allowed again: exit 0" worked
run keys allow --data d n1
ok "a secret file is no public one: exit 1" fails 1 "n1"
run keys allow --data d none.pub
ok "a missing file: exit 1" fails 1 "none.pub"
run keys allow n1.pub
ok "no --data: exit 2" fails 2 "--data"
run keys ls --data d --json
ok "ls --json names it" json '[(i["name"],i["role"],len(i["key"])) for i in d["items"]]==[("n1","agent",40)]'
run keys ls --data d
ok "ls prints a table" worked "n1 *agent"
"$sf" keys new c --role coordinator --name c
run keys allow --data d c.pub
ok "a coordinator's key is no peer's: exit 2" fails 2 "coordinator"
run keys revoke --data d nobody
ok "revoke of an unknown name: exit 1" fails 1 "nobody"
run keys revoke --data d n1.pub
ok "revoke by file" worked
run keys ls --data d --json
ok "and it is gone" json 'd["items"]==[]'
"$sf" keys new k9 --role user --name odd.pub && "$sf" keys allow --data d k9.pub
run keys revoke --data d odd.pub
ok "a name that ends like a file can be revoked, too" worked
