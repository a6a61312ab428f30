# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data list, status and test. Sourced by hyrax-data.

row() { printf '%-20s %-10s %-13s %s\n' "$@"; }

list() {
    [ $# -eq 0 ] || usage_error "list takes nothing after it"
    [ -n "$(data_sets)" ] || say "no data sets; $(add_hint)" >&2
    for each in $(data_sets); do
        printf '%-20s %s\n' "$each" "$(data_url "$each")"
    done
}

status() {
    [ $# -le 1 ] || usage_error "status takes one name; see: hyrax-data list"
    [ $# -eq 0 ] || check_known "$1"
    names=${1:-$(data_sets)}
    if [ -z "$names" ]; then
        say "no data sets; $(add_hint)"
        return 0
    fi
    away=0
    row NAME STATE USED/SIZE URL
    for each in $names; do
        look_at "$each"
        row "$each" "$state" "$space" "$(data_url "$each")"
        [ -z "$problem" ] || { say "    $problem"; away=1; }
    done
    return "$away"
}

# look_at NAME: sets state (local, mounted, waiting, away, hung, unreadable), space and problem.
# waiting: the automount is set and the file server answers; it is mounted when read.
look_at() {
    space=- problem= state=local
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
    parse_url "$(data_url "$1")"
    login=$(conf_value "$1" LOGIN) vers=$(conf_value "$1" VERS)
    if [ -e "$ROOT/run/hyrax/away/$1" ]; then
        state=away problem="$host does not answer; it was detached, and comes back by itself when $host does"
        return
    fi
    if ! is_mounted "$1"; then
        answer=$("$LIB/tcp-probe" "$host" "$port" 5)
        if [ "$answer" != open ]; then
            state=away problem=$(words_for_probe "$answer")
            return
        fi
        if ! systemctl is-active --quiet "$(unit "$1" automount)"; then
            state=away problem="its automount is off; type: sudo systemctl start $(unit "$1" automount)"
            return
        fi
        with_deadline 20 ls -d "$ROOT$DATA/$1/." >"$work/out" 2>"$work/err" || {
            state=away
            try "$(unit_options "$1")" && problem="it could not be mounted; see: journalctl -u $(unit "$1" mount)"
            return
        }
        is_mounted "$1" || { state=waiting; return; }
    fi
    if ! measure "$1"; then
        state=hung problem="$host does not answer; it comes back by itself when $host does"
        return
    fi
    state=mounted
    with_deadline 5 setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- \
        find "$ROOT$DATA/$1" -mindepth 1 -maxdepth 1 -print -quit >"$work/out" 2>&1 || {
        state=unreadable problem=$(words_for_look forbidden)
    }
}

# measure NAME: sets space; asks the file server every time
measure() {
    # blocks in all, free blocks, bytes in a block
    with_deadline 5 stat -f -c '%b %f %S' "$ROOT$DATA/$1" >"$work/out" 2>/dev/null || return 1
    read -r blocks free size <"$work/out"
    space=$(numfmt --to=iec $(((blocks - free) * size)))/$(numfmt --to=iec $((blocks * size)))
}

# test_one NAME: through the server, as a client sees it
test_one() {
    [ $# -eq 1 ] || usage_error "test takes one name; see: hyrax-data list"
    check_known "$1"
    where=http://127.0.0.1:$PORT/opendap/data/$1/
    healthy || fail "the data server does not answer on port $PORT; see: systemctl status hyrax.target"
    look_at "$1"
    [ -z "$problem" ] || fail "$1 is $state: $problem"
    fetch "$where" || fail "the listing $where is not served: $reason"
    say "listing: $where (HTTP $code)"
    with_deadline 20 find "$ROOT$DATA/$1" -maxdepth 4 -name '.?*' -prune -o -type f \( -name '*.nc' -o -name '*.nc4' \
        -o -name '*.cdf' -o -name '*.h5' -o -name '*.hdf5' -o -name '*.he5' -o -name '*.hdf' \) \
        -print -quit >"$work/found" 2>/dev/null
    # A name may end in anything but the newline that find adds.
    file=$(head -c 4096 "$work/found")
    file=${file#"$ROOT$DATA/$1/"}
    [ -n "$file" ] ||
        fail "no data file (*.nc *.nc4 *.cdf *.h5 *.hdf5 *.he5 *.hdf) is found in $1, four levels deep"
    address=$where$(printf '%s' "$file" | perl -pe 's{([^A-Za-z0-9/._~-])}{sprintf "%%%02X", ord $1}ge').dds
    fetch "$address" || fail "$address is not served: $reason"
    grep -q '^Dataset {' "$work/out" || fail "$address answers, but not with a DDS"
    say "DDS:     $address"
    cat "$work/out"
}

# fetch URL: into $work/out; sets code and reason
fetch() {
    code=$(curl -s -m 60 --globoff -o "$work/out" -w '%{http_code}' "$1")
    reason="HTTP $code; see: journalctl -u 'hyrax-*'"
    [ "$code" != 000 ] || reason="no answer within 60 s; see: systemctl status hyrax.target"
    [ "$code" = 200 ]
}
