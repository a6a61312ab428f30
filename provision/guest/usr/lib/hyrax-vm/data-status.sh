# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data list and status. Sourced by hyrax-data.

list() {
    [ $# -eq 0 ] || usage_error "list takes nothing after it"
    if [ -n "$json" ]; then
        for each in $(data_sets); do described "$each"; done | json_array
        return
    fi
    odd_folders
    [ -n "$(data_sets)" ] || say "no data sets; $(add_hint)" >&2
    for each in $(data_sets); do
        printf '%-20s %s%s\n' "$each" "$(data_url "$each")" "$(restriction_of "$each")"
    done
}

# described NAME [KEY VALUE ...]: prints it as a JSON object: its settings, then the caller's keys
described() {
    which=$1
    shift
    from=$(data_url "$which")
    case $from in
    *://*) set -- kind "${from%%://*}" "$@" ;;
    *) set -- kind local "$@" ;;
    esac
    json_object name "$which" source "$from" url "$(base_url)data/$which/" user:text "$(conf_value "$which" LOGIN)" \
        version:text "$(conf_value "$which" VERS)" options:text "$(conf_value "$which" OPTIONS)" \
        users:json "$(users_json "$which")" hidden:flag "$(is_hidden "$which" && say yes)" "$@"
}

# restriction_of NAME: who may read it, in words; nothing when it is for everybody
restriction_of() {
    ! is_restricted "$1" || say " (for $(users_of "$1" | paste -s -d ' ')$(! is_hidden "$1" || say ', hidden'))"
}

# settings_of NAME: its settings in words; nothing when all are the defaults
settings_of() {
    [ -f "$CONF/$1.conf" ] || return 0
    chosen=
    vers=$(conf_value "$1" VERS) login=$(conf_value "$1" LOGIN) extra=$(conf_value "$1" OPTIONS)
    [ "$vers" = "$(of_kind versions | cut -d ' ' -f 1)" ] || chosen="$(of_kind protocol) $vers"
    [ -z "$login" ] || chosen="$chosen${chosen:+, }user $login"
    [ -z "$extra" ] || chosen="$chosen${chosen:+, }options $extra"
    say "$chosen"
}

status() {
    [ $# -le 1 ] || usage_error "status takes one name; see: hyrax-data list"
    [ $# -eq 0 ] || check_known "$1"
    [ $# -gt 0 ] || [ -n "$json" ] || odd_folders
    names=${1:-$(data_sets)}
    if [ -z "$names" ] && [ -z "$json" ]; then
        say "no data sets; $(add_hint)"
        return 0
    fi
    # Not in a pipe: a failure in its subshell would not become the exit status.
    for each in $names; do
        look_at "$each"
        [ -z "$problem" ] || : >"$work/trouble"
        if [ -n "$json" ]; then
            described "$each" state "$state" problem:text "$problem" size_bytes:number "$size" \
                used_bytes:number "$used" last_access_s:number "$age" rtt_ms:number "$rtt"
        else
            table_row
        fi
    done >"$work/status"
    if [ -n "$json" ]; then
        json_array <"$work/status"
    else
        row NAME STATE USED/SIZE READ RTT/ms SOURCE
        cat "$work/status"
    fi
    [ ! -e "$work/trouble" ]
}

row() { printf '%-20s %-10s %-11s %-5s %-6s %s\n' "$@"; }

table_row() {
    space=-
    [ -z "$size" ] || space=$(numfmt --to=iec "$used")/$(numfmt --to=iec "$size")
    row "$each" "$state" "$space" "$(ago "$age")" "$([ -z "$rtt" ] || printf %.2f "$rtt")" "$(data_url "$each")"
    chosen=$(settings_of "$each")
    [ -z "$chosen" ] || say "    $chosen"
    ! is_restricted "$each" || say "   $(restriction_of "$each")"
    [ -z "$problem" ] || say "    $problem"
}

# ago SECONDS: prints now, 12m, 5h or 3d; - for an empty SECONDS
ago() {
    if [ -z "$1" ]; then say -
    elif [ "$1" -lt 60 ]; then say now
    elif [ "$1" -lt 7200 ]; then say "$(($1 / 60))m"
    elif [ "$1" -lt 172800 ]; then say "$(($1 / 3600))h"
    else say "$(($1 / 86400))d"
    fi
}

# look_at NAME: sets state, problem (empty when all is well), used and size (bytes), age (seconds
# since it was last read), rtt (milliseconds to the file server). Unknown values are empty.
# state: local; mounted; waiting (it can be mounted, and is when it is read); away (the file server
# cannot be reached); hung (it does not answer); refused (it does not let this VM mount);
# unreadable (the data server's user may not read it); off (its automount was stopped)
look_at() {
    problem= used= size= age= rtt= state=local
    if [ -f "$CONF/$1.conf" ]; then
        look_at_remote "$1"
        return
    fi
    measure "$1"
    unreadable=$(local_unreadable "$1")
    [ -z "$unreadable" ] || state=unreadable problem="the data server's user ($user) may not read \
$(plain "${unreadable#"$ROOT"}"); type: chmod -R a+rX $DATA/$1"
}

look_at_remote() {
    if ! "$LIB/data-url" "$(data_url "$1")" >/dev/null 2>&1; then
        state=off problem="its settings cannot be read; type: hyrax-data remove $1; and add it again"
        return
    fi
    parse_url "$(data_url "$1")"
    login=$(conf_value "$1" LOGIN) vers=$(conf_value "$1" VERS)
    last_access "$1"
    # In the same order as quick_state, which the banner uses: both must say the same.
    if [ -e "$ROOT/run/hyrax/away/$1" ]; then
        # The state is known; this finds the reason.
        if probe && try_mount "$(unit_options "$1")" 10; then problem="$host answers again"; fi
        state=away problem="$problem; the data set was detached, and comes back by itself"
    elif ! probe; then
        state=away
    elif is_mounted "$1"; then
        look_at_mounted "$1"
    elif ! systemctl is-active --quiet "$(unit "$1" automount)"; then
        state=off problem="its automount is off; type: sudo systemctl start $(unit "$1" automount)"
    elif try_mount "$(unit_options "$1")" 15; then
        # Looked at in a trial mount elsewhere, so that this does not count as a read.
        state=waiting
        in_bytes "$sizes"
        if [ "$verdict" = forbidden ]; then state=unreadable; else problem=; fi
    else
        state=refused
        [ "$status" -ne 124 ] || state=hung
    fi
}

look_at_mounted() {
    if ! measure "$1"; then
        state=hung problem="$host does not answer; the data set comes back by itself when $host does"
        return
    fi
    state=mounted
    with_deadline 5 env --chdir=/ setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- \
        find "$ROOT$DATA/$1" -mindepth 1 -maxdepth 1 -print -quit >"$work/out" 2>&1 || {
        state=unreadable problem=$(words_for_look forbidden)
    }
}

# last_access NAME: sets age, to within the seven minutes after which systemd has unmounted it, if no file
# was open when it looked (every 100 s); empty when nobody has read it since the VM was started. The file server's own access times are of
# no use: it may not keep them, or they are those of other readers.
last_access() {
    if is_mounted "$1"; then
        age=0
        return
    fi
    ended=$(systemctl show --value --property=ActiveExitTimestampMonotonic "$(unit "$1" mount)")
    case $ended in
    '' | 0 | *[!0-9]*) return ;;
    esac
    read -r now _ <"$ROOT/proc/uptime"
    age=$((${now%.*} - ended / 1000000))
}

# measure NAME: sets used and size; asks the file server every time
measure() {
    with_deadline 5 stat -f -c '%b %f %S' "$ROOT$DATA/$1" >"$work/out" 2>/dev/null || return 1
    in_bytes "$(cat "$work/out")"
}

# in_bytes 'BLOCKS FREE SIZE': sets used and size
in_bytes() {
    read -r blocks free block <<END
$1
END
    used=$(((blocks - free) * block)) size=$((blocks * block))
}
