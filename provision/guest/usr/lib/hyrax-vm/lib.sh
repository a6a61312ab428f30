# shellcheck shell=sh disable=SC2034  # its variables are for the scripts that source it
# Functions and paths that the guest's scripts share; sourced, never run.
#
# HYRAX_ROOT is put before every path, so that tests can run the scripts on a directory instead of
# the running system; PATH then stays as it is. In a real guest HYRAX_ROOT is empty.

ROOT=${HYRAX_ROOT:-}
[ -n "$ROOT" ] || PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C
umask 022

LIB=$ROOT/usr/lib/hyrax-vm
DATA=/srv/hyrax/data
CONF=$ROOT/etc/hyrax/data.d
UNITS=$ROOT/etc/systemd/system
PORT=8080        # of the front door
SERVER_PORT=8081 # of the data server, on the loopback
HTTPS_PORT=443   # of the front door when HTTPS is on
HTTP_PORT=80     # of the front door for an ACME server

me=${0##*/}
say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "$me" "$*" >&2; }
# usage_error WORDS: the user made a mistake; fail WORDS: something outside the command is wrong
usage_error() { refuse 2 "$@"; }
fail() { refuse 1 "$@"; }

# json: set by a command that was given --json; then errors are JSON too, on the standard output
json=
refuse() {
    status=$1
    shift
    if [ -n "$json" ]; then json_object error "$*"; else warn "$@"; fi
    exit "$status"
}

# json_object KEY[:TYPE] VALUE ...: prints one line; json_array < lines: joins such lines to an array
json_object() { "$LIB/json-object" "$@"; }
json_array() { printf '[%s]\n' "$(paste -s -d ,)"; }

# visible < text: without control characters but newlines and tabs: a terminal would obey those of strangers
visible() { sed 's/[\x01-\x08\x0b-\x1f\x7f]/?/g; s/\xc2[\x80-\x9f]/?/g'; }

# plain TEXT: the user's TEXT without what is unsafe to show, at most 80 characters
plain() { printf '%s' "$1" | tr -c '[:print:]' '?' | cut -c 1-80; }

# release KEY: prints a value of /etc/hyrax-vm-release, whose lines are shell assignments. The file is
# read only once, here: to start a program takes 30 ms on an emulated CPU.
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

# drained: prints when this server was drained; fails when it is not
drained() { cat "$ROOT/var/lib/hyrax/drained" 2>/dev/null; }

# value_of KEY FILE: prints the value of the last line KEY=VALUE of a file, or nothing. It starts no program:
# the front door, the banner and the page ask for a dozen values.
value_of() {
    found_value=
    # The last line may lack its end: people edit some of these files.
    while IFS= read -r found_line || [ -n "$found_line" ]; do
        case $found_line in
        "$1="*) found_value=${found_line#*=} ;;
        esac
    done 2>/dev/null <"$2"
    [ -z "$found_value" ] || say "$found_value"
}

# shellcheck source=provision/guest/usr/lib/hyrax-vm/server-settings.sh
. "$LIB/server-settings.sh"

# ask_whom: a sentence for errors: whom to ask; nothing when the administrator has set no address
ask_whom() {
    email=$(server_setting EMAIL)
    [ -z "$email" ] || say " Ask $email."
}

# server_name: the data server's name for people; only Hyrax is called Hyrax
server_name() {
    case $(release SERVER) in
    hyrax) say "Hyrax $(release SERVER_VERSION)" ;;
    dapdir) say "dapdir $(release SERVER_VERSION) (embedded default, not Hyrax)" ;;
    *) say "$(release SERVER) $(release SERVER_VERSION) (not Hyrax)" ;;
    esac
}

# with_deadline SECONDS COMMAND...: returns the command's status, or 124 when it took longer.
# On a hung mount not even SIGKILL may end a process. `timeout` would wait for such a process; this
# function does not. For the same reason send its output to a file: it would hold a pipe open.
# 9>&-: a process that is left behind must not keep hyrax-data's lock.
# The pauses grow, from 0.05 to 0.4 s: on an emulated CPU each `sleep` takes time from the command.
child=
with_deadline() {
    ticks=$(($1 * 100))
    pause=05
    shift
    setsid "$@" 9>&- </dev/null &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        if [ "$ticks" -le 0 ]; then
            kill_child
            return 124
        fi
        sleep "0.$pause"
        ticks=$((ticks - ${pause#0}))
        case $pause in
        05) pause=10 ;;
        10) pause=20 ;;
        20) pause=40 ;;
        esac
    done
    pid=$child
    child=
    wait "$pid"
}

# kill_child: kills the process group of with_deadline's command (dash knows -s KILL --, not -KILL --)
kill_child() {
    [ -z "$child" ] || kill -s KILL -- "-$child" 2>/dev/null || :
    child=
}

# addresses: prints a line like "eth0 192.0.2.7" for each global IPv4 address, then for each IPv6 one
addresses() {
    all=$(ip -o address show scope global 2>/dev/null)
    for family in inet inet6; do
        while read -r _ link kind address _; do
            [ "$kind" != "$family" ] || [ "$link" = lo ] || say "$link ${address%%/*}"
        done <<END
$all
END
    done
}

# links: the network adapters that have hardware behind them, one a line
links() {
    for each in "$ROOT"/sys/class/net/*/device; do
        [ ! -e "$each" ] || basename "${each%/device}"
    done
}

# static_address LINK: the address that hyrax-network has set; nothing with DHCP
static_address() { sed -n 's/^Address=//p' "$ROOT/etc/systemd/network/40-hyrax-$1.network" 2>/dev/null; }

# PROBING: seconds in which another machine with the same address is found (RFC 5227: at most 9)
PROBING=10

# is_probed LINK: is systemd-networkd still asking whether another machine has the fixed address? It writes
# the link's file when a cable is plugged in and when the setting is read. A link for which `hyrax-network
# static` has waited longer is not probed any more.
is_probed() {
    address=$(static_address "$1")
    [ "$(cat "$ROOT/run/hyrax/not-free.$1" 2>/dev/null)" != "$address" ] || return 1
    begun=$(stat -c %Y "$ROOT/run/systemd/netif/links/$(cat "$ROOT/sys/class/net/$1/ifindex")" 2>/dev/null) || return 1
    age=$(($(date +%s) - begun))
    # A clock that was set back says nothing.
    [ "$age" -ge 0 ] && [ "$age" -lt "$PROBING" ]
}

# why_no_address LINK: says why the adapter has no address
why_no_address() {
    if [ ! -e "$ROOT/sys/class/net/$1" ]; then
        say "this VM has no network adapter"
    elif ! carrier=$(cat "$ROOT/sys/class/net/$1/carrier" 2>/dev/null); then
        say "the network adapter $1 is not switched on yet" # systemd-networkd does
    elif [ "$carrier" != 1 ]; then
        say "the network adapter $1 is not connected"
    elif [ -n "$(static_address "$1")" ] && is_probed "$1"; then
        say "checking whether $(static_address "$1") is free on $1; this takes $PROBING seconds"
    elif [ -n "$(static_address "$1")" ]; then
        say "$(static_address "$1") is not free on $1"
    else
        say "no answer to DHCP on $1"
    fi
}

# url_host ADDRESS: ADDRESS as the host of a URL
url_host() {
    case $1 in
    *:*) printf '[%s]' "$1" ;;
    *) printf '%s' "$1" ;;
    esac
}

# base_url: the server's URL as seen from outside; with a placeholder while there is no address
base_url() { url_at "$(addresses)"; }

# url_at ADDRESSES: the same where it is known what `addresses` prints
url_at() {
    first=${1%%"
"*}
    first=${first#* }
    if [ -n "$first" ]; then
        printf 'http://%s:%s/opendap/' "$(url_host "$first")" "$PORT"
    else
        printf 'http://ADDRESS:%s/opendap/' "$PORT"
    fi
}

# listening PORT: does a program on this machine accept connections on PORT? Reads the kernel's table
# (proc(5), net/tcp): while a server starts, this question must not take its processor time.
listening() {
    grep -q "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$1") [0-9A-F]*:0000 0A " \
        "$ROOT/proc/net/tcp" "$ROOT/proc/net/tcp6" 2>/dev/null
}

# free_mib: prints the MiB that are free for what slow readers have not fetched yet
free_mib() {
    # shellcheck disable=SC2046  # two numbers
    set -- $(stat -f -c '%a %S' "$ROOT/var/cache/hyrax-front-door" 2>/dev/null)
    say "$((${1:-0} * ${2:-0} / 1048576))"
}

# healthy PORT: does the server answer within 10 s, through the front door or on its own port? (Java
# on an emulated CPU is slow.)
healthy() {
    path=$(release HEALTH_PATH)
    curl -sf -m 10 -o /dev/null "http://127.0.0.1:$1${path:-/opendap/}" 2>/dev/null
}

# shellcheck source=provision/guest/usr/lib/hyrax-vm/state.sh
. "$LIB/state.sh"
# shellcheck source=provision/guest/usr/lib/hyrax-vm/data-sets.sh
. "$LIB/data-sets.sh"
# shellcheck source=provision/guest/usr/lib/hyrax-vm/https.sh
. "$LIB/https.sh"
