# shellcheck shell=sh
# A private apt directory: package indexes, sources and downloads without root and without touching the system's.
# Sourced by build.sh and by the image builder, which set $work (a scratch folder).
# shellcheck disable=SC2154

say() { echo "${0##*/}: $*" >&2; }
die() { echo "${0##*/}: $*" >&2; exit 1; }

# One-line and deb822 entries of this Debian's release from the system's configuration, as one-line entries.
# Third-party entries stay out: they have other suites. $1 = deb or deb-src.
apt_entries() {
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || die "/etc/os-release: no VERSION_CODENAME"
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$f" ] && sed -n 's/#.*//; /^[[:space:]]*deb\(-src\)\?[[:space:]]/p' "$f"
    done | awk -v type="$1" -v code="$codename" '
        {
            opt = ""; i = 2
            if ($i ~ /^\[/) { while (i <= NF) { opt = opt " " $i; if ($(i++) ~ /\]$/) break } }
            uri = $i; suite = $(i + 1)
            if (suite == code || suite ~ "^" code "-(updates|security)$" || suite == code "/updates")
                print type opt, uri, suite, "main"
        }'
    for f in /etc/apt/sources.list.d/*.sources; do
        [ -f "$f" ] && { cat "$f"; echo; }
    done | awk -v type="$1" -v code="$codename" '
        function flush_entry(   nu, ns, u, s, i, j, opt) {
            opt = signed != "" && signed !~ /[ \n]/ ? " [signed-by=" signed "]" : ""
            nu = split(uris, u, " "); ns = split(suites, s, " ")
            if (enabled != "no" && comps ~ /(^| )main( |$)/)
                for (i = 1; i <= nu; i++)
                    for (j = 1; j <= ns; j++)
                        if (s[j] == code || s[j] ~ "^" code "-(updates|security)$")
                            print type opt, u[i], s[j], "main"
            uris = suites = comps = signed = enabled = ""
        }
        /^#/ { next }
        /^[[:space:]]*$/ { flush_entry(); next }
        { split($0, kv, ":"); key = tolower(kv[1]); v = $0; sub(/^[^:]*:[[:space:]]*/, "", v) }
        key == "uris" { uris = v } key == "suites" { suites = v } key == "components" { comps = v }
        key == "signed-by" { signed = v } key == "enabled" { enabled = v }
        END { flush_entry() }'
}

# apt_setup TYPE...: fetch the signed indexes of deb and/or deb-src into the private directory.
apt_setup() {
    command -v apt-get >/dev/null || die "apt-get: not found; this needs a Debian host"
    aptdir=$work/apt
    mkdir -p "$aptdir/lists/partial" "$aptdir/cache/archives/partial"
    for type in "$@"; do apt_entries "$type"; done | sort -u >"$aptdir/sources.list"
    [ -s "$aptdir/sources.list" ] || die "/etc/apt: no entry of this Debian release to take packages from"
    apt_opts="-q -o Dir::Etc::sourcelist=$aptdir/sources.list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists=$aptdir/lists -o Dir::Cache=$aptdir/cache -o APT::Sandbox::User=
        -o Acquire::Languages=none -o Acquire::Retries=2 -o Acquire::http::Timeout=30
        -o APT::Get::AllowUnauthenticated=false -o Acquire::AllowInsecureRepositories=false"
    # shellcheck disable=SC2086
    apt-get $apt_opts update >"$work/apt.log" 2>&1 ||
        die "apt-get update: $(grep -m1 '^[EW]:' "$work/apt.log" || echo failed)"
}

# apt_fetch PACKAGE...: the .deb files into the current folder, verified by apt against the signed index.
apt_fetch() {
    # shellcheck disable=SC2086
    apt-get $apt_opts download "$@" >"$work/apt.log" 2>&1 ||
        die "apt-get download: $(grep -m1 '^E:' "$work/apt.log" || echo failed)"
}
