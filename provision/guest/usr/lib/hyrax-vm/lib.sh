# shellcheck shell=sh disable=SC2034  # its variables are for those who source it
# Shared by the guest's own scripts; sourced, never run.
#
# HYRAX_ROOT is put before every path, so that the scripts can be tried on a directory instead of
# on the running system; then PATH is left alone too. Empty in a real guest.

ROOT=${HYRAX_ROOT:-}
[ -n "$ROOT" ] || PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C
umask 022

LIB=$ROOT/usr/lib/hyrax-vm
DATA=/srv/hyrax/data
CONF=$ROOT/etc/hyrax/data.d
UNITS=$ROOT/etc/systemd/system
PORT=8080

me=${0##*/}
say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "$me" "$*" >&2; }
# The user's mistake; then: the world outside is not as it should be.
usage_error() { refuse 2 "$@"; }
fail() { refuse 1 "$@"; }

# json: a command that takes --json sets it; then errors are JSON too, on the standard output.
json=
refuse() {
    status=$1
    shift
    if [ -n "$json" ]; then json_object error "$*"; else warn "$@"; fi
    exit "$status"
}

# json_object KEY[:TYPE] VALUE ...: one line; json_array < lines: an array of such objects
json_object() { "$LIB/json-object" "$@"; }
json_array() { printf '[%s]\n' "$(paste -s -d ,)"; }

# write_file PATH < content: all of it or nothing, also when the power goes (rename(2) alone may
# leave a new file empty)
write_file() {
    cat >"$1.new" && sync "$1.new" && mv -f "$1.new" "$1"
}

# plain TEXT: what the user typed, safe to show
plain() { printf '%s' "$1" | tr -c '[:print:]' '?' | cut -c 1-80; }

# release KEY: a value of /etc/hyrax-vm-release, which is written to be read by a shell. It is read
# once, here: each program that is started takes an emulated CPU 30 ms.
if [ -r "$ROOT/etc/hyrax-vm-release" ]; then
    while IFS= read -r line; do
        case $line in
        [A-Z]*=*) eval "release_$line" ;;
        esac
    done <"$ROOT/etc/hyrax-vm-release"
fi
release() { eval "say \"\${release_$1-}\""; }

lower() { printf '%s' "$1" | tr '[:upper:]' '[:lower:]'; }
upper() { printf '%s' "$1" | tr '[:lower:]' '[:upper:]'; }

# server_setting KEY: what `hyrax-server set` was told, or nothing
server_setting() { sed -n "s/^$1=//p" "$ROOT/etc/hyrax/server.conf" 2>/dev/null | tail -n 1; }

# server_name: as it is told to people; nothing that is not Hyrax is called Hyrax
server_name() {
    case $(release SERVER) in
    hyrax) say "Hyrax $(release SERVER_VERSION)" ;;
    dapdir) say "dapdir $(release SERVER_VERSION) (embedded default, not Hyrax)" ;;
    *) say "$(release SERVER) $(release SERVER_VERSION) (not Hyrax)" ;;
    esac
}

# with_deadline SECONDS COMMAND...: the command's status, or 124 when it took longer.
# A process on a hung mount may not die even from SIGKILL; `timeout` would wait for it, this does
# not. For the same reason send its output to a file: a pipe would be held open.
# 9>&-: what is left behind must not keep the lock.
child=
with_deadline() {
    ticks=$(($1 * 20))
    shift
    setsid "$@" 9>&- </dev/null &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        if [ "$ticks" -le 0 ]; then
            kill_child
            return 124
        fi
        ticks=$((ticks - 1))
        sleep 0.05
    done
    pid=$child
    child=
    wait "$pid"
}

# The whole group; dash understands -s KILL before --, but not -KILL.
kill_child() {
    [ -z "$child" ] || kill -s KILL -- "-$child" 2>/dev/null || :
    child=
}

# addresses: "eth0 192.0.2.7" per global IPv4 address, then per global IPv6 address
addresses() {
    for family in -4 -6; do
        ip -o $family address show scope global 2>/dev/null |
            sed -n 's|^[0-9]*: *\([^ ]*\) *inet6* \([^/ ]*\).*|\1 \2|p'
    done | grep -v '^lo ' || :
}

# links: the network adapters, one a line: what has hardware behind it
links() {
    for each in "$ROOT"/sys/class/net/*/device; do
        [ ! -e "$each" ] || basename "${each%/device}"
    done
}

# static_address LINK: the address that hyrax-network has set; nothing when it is DHCP's
static_address() { sed -n 's/^Address=//p' "$ROOT/etc/systemd/network/40-hyrax-$1.network" 2>/dev/null; }

# why_no_address LINK: in words
why_no_address() {
    if [ ! -e "$ROOT/sys/class/net/$1" ]; then
        say "this VM has no network adapter"
    elif ! carrier=$(cat "$ROOT/sys/class/net/$1/carrier" 2>/dev/null); then
        say "the network adapter $1 is not switched on yet" # systemd-networkd does
    elif [ "$carrier" != 1 ]; then
        say "the network adapter $1 is not connected"
    elif [ -n "$(static_address "$1")" ]; then
        say "$(static_address "$1") is not free on $1"
    else
        say "no answer to DHCP on $1"
    fi
}

# url_host ADDRESS: as it stands in a URL
url_host() {
    case $1 in
    *:*) printf '[%s]' "$1" ;;
    *) printf '%s' "$1" ;;
    esac
}

# base_url: where this VM is reached from outside, or a placeholder while it has no address
base_url() {
    first=$(addresses | sed -n '1s/^[^ ]* //p')
    if [ -n "$first" ]; then
        printf 'http://%s:%s/opendap/' "$(url_host "$first")" "$PORT"
    else
        printf 'http://ADDRESS:%s/opendap/' "$PORT"
    fi
}

# listening PORT: does something on this machine accept connections? A look at the kernel's table:
# what is asked for while a server starts must not take its processor time (proc(5), net/tcp).
listening() {
    grep -q "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$1") [0-9A-F]*:0000 0A " \
        "$ROOT/proc/net/tcp" "$ROOT/proc/net/tcp6" 2>/dev/null
}

# healthy: does the server answer? (10 s at most: Java under emulation is slow)
healthy() {
    path=$(release HEALTH_PATH)
    curl -sf -m 10 -o /dev/null "http://127.0.0.1:$PORT${path:-/opendap/}" 2>/dev/null
}

# shellcheck source=provision/guest/usr/lib/hyrax-vm/data-sets.sh
. "$LIB/data-sets.sh"
