# shellcheck shell=sh disable=SC2034,SC2153,SC2154  # variables are shared with lib.sh and its users
# What the system knows of the data sets; nothing here looks into one. Sourced by lib.sh.

# Changes of data sets that are not complete; see data-undo.sh.
UNDO=$ROOT/var/lib/hyrax/undo

# data_sets: the names, one a line: first those on file servers, then folders on this VM's own disk
data_sets() {
    for conf in "$CONF"/*.conf; do
        each=${conf##*/}
        [ ! -f "$conf" ] || say "${each%.conf}"
    done
    # ls only reads the names. find and the like also look at each one, and its file server may hang.
    # shellcheck disable=SC2012
    ls "$ROOT$DATA" 2>/dev/null | while IFS= read -r each; do
        ! is_local "$each" || say "$each"
    done
}

# is_name TEXT: can it be the name of a data set?
is_name() {
    case $1 in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) return 1 ;;
    esac
}

# is_local NAME: is it a folder on this VM's own disk? Does not touch what may be on a file server.
is_local() {
    is_name "$1" && [ ! -f "$CONF/$1.conf" ] && ! in_mount_table "$1" && [ -d "$ROOT$DATA/$1" ]
}

# conf_value NAME KEY. Without a program: to start one takes longer than all the rest.
conf_value() {
    [ -r "$CONF/$1.conf" ] || return 0
    while IFS= read -r line; do
        case $line in
        "$2="*) say "${line#*=}" ;;
        esac
    done <"$CONF/$1.conf"
}

# data_url NAME: its source, a URL or a folder
data_url() { if [ -f "$CONF/$1.conf" ]; then conf_value "$1" URL; else say "$DATA/$1"; fi; }

# example: a URL for this image's client; add_hint: how to add a data set
example() {
    case $(release ACCESS) in
    smb) say "smb://HOST/SHARE --user NAME" ;;
    *) say "nfs://HOST/EXPORT" ;;
    esac
}
add_hint() {
    case $(release ACCESS) in
    local) say "copy one to $DATA/NAME" ;;
    *) say "add one with: hyrax-data add $(example)" ;;
    esac
}

# is_restricted NAME: is it for some readers only? is_hidden NAME: is it left out of listings?
RESTRICT=$ROOT/etc/hyrax/restrict.d
is_restricted() { [ -f "$RESTRICT/$1.htpasswd" ]; }
is_hidden() { is_restricted "$1" && [ -f "$RESTRICT/$1.hidden" ]; }
restricted_sets() {
    for each in "$RESTRICT"/*.htpasswd; do
        [ ! -f "$each" ] || basename "$each" .htpasswd
    done
}
users_of() { cut -d : -f 1 "$RESTRICT/$1.htpasswd" 2>/dev/null; }

# hidden_under: what is before the name of a data set in the paths of this server; nothing when that is
# not known. The server's own file /usr/lib/hyrax/front-door says it.
# shellcheck source=provision/servers/hyrax/guest/usr/lib/hyrax/front-door
hidden_under() { (. "$ROOT/usr/lib/hyrax/front-door" 2>/dev/null && say "${data_under:-}"); }

# is_mounted NAME: are its data mounted? Read from the kernel's mount table, which a hung file server
# cannot block. The automount itself (autofs) does not count.
is_mounted() {
    while read -r _ point fstype _; do
        [ "$point" != "$DATA/$1" ] || [ "$fstype" = autofs ] || return 0
    done <"$ROOT/proc/self/mounts"
    return 1
}

# in_mount_table NAME: is anything at all mounted there, an automount too?
in_mount_table() {
    while read -r _ point _; do
        [ "$point" != "$DATA/$1" ] || return 0
    done <"$ROOT/proc/self/mounts"
    return 1
}

# refresh_banner: updates the banner and the landing page at once.
# 9>&-: they must not keep hyrax-data's lock.
refresh_banner() { "$LIB/banner" 9>&- || :; "$LIB/landing" 9>&- || :; }

# is_open HOST PORT: does the port accept connections? Asks each file server only once in a run.
opened=""
closed=""
is_open() {
    case " $opened / $closed " in
    *" $1:$2 "*/*) return 0 ;;
    */*" $1:$2 "*) return 1 ;;
    esac
    if [ "$("$LIB/tcp-probe" "$1" "$2" 2)" = open ]; then
        opened="$opened $1:$2"
    else
        closed="$closed $1:$2"
        return 1
    fi
}

# ask_servers NAME...: asks the file servers of these data sets for is_open, all at the same time: each of
# them may be dead
ask_servers() {
    asked=$(for each; do
        [ -f "$CONF/$each.conf" ] && parse_place "$(conf_value "$each" URL)" && say "$host $port"
    done)
    [ -n "$asked" ] || return 0
    while read -r host port verdict; do
        if [ "$verdict" = open ]; then opened="$opened $host:$port"; else closed="$closed $host:$port"; fi
    done <<END
$(say "$asked" | "$LIB/tcp-probe" - 2)
END
}

# parse_place URL: sets host and port. Parses the plain URLs that hyrax-data keeps; leaves the others to
# data-url, which takes ten times as long.
parse_place() {
    case $1 in
    nfs://[a-z0-9]*/* | smb://[a-z0-9]*/*)
        host=${1#*://}
        host=${host%%/*}
        port=${host#*:}
        host=${host%%:*}
        case $1 in
        *[!A-Za-z0-9._:/-]* | *//*//* | */./* | */../* | */. | */..) ;;
        *)
            case ${1%%:*}:$port in
            nfs:"$host") port=2049; return ;;
            smb:"$host") port=445; return ;;
            ???:[1-9] | ???:[1-9][0-9] | ???:[1-9][0-9][0-9] | ???:[1-9][0-9][0-9][0-9]) return ;;
            ???:[1-5][0-9][0-9][0-9][0-9] | ???:6[0-4][0-9][0-9][0-9]) return ;;
            esac
            ;;
        esac
        ;;
    esac
    parsed=$("$LIB/data-url" "$1" 2>/dev/null) || return 1
    { read -r _ && read -r host && read -r port; } <<END
$parsed
END
}

# quick_state NAME: sets state (local, mounted, waiting, away) and detail, the same in words.
# Uses only the mount table and a connection to the port: nothing slower, and never the data.
quick_state() {
    if [ ! -f "$CONF/$1.conf" ]; then
        state=local detail="on this VM's own disk"
    elif ! parse_place "$(conf_value "$1" URL)"; then
        state=away detail='its settings cannot be read'
    elif [ -e "$ROOT/run/hyrax/away/$1" ] || ! is_open "$host" "$port"; then
        state=away detail="away, $host does not answer"
    elif is_mounted "$1"; then
        state=mounted detail=mounted
    else
        state=waiting detail='mounted when it is read'
    fi
}
