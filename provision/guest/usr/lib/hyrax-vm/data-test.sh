# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-data
# hyrax-data test. Sourced by hyrax-data.

# test_one NAME: fetches from the server what a client would
test_one() {
    [ $# -eq 1 ] || usage_error "test takes one name; see: hyrax-data list"
    check_known "$1"
    where=http://127.0.0.1:$PORT/opendap/data/$1/
    # The front door would ask for a password.
    ! is_restricted "$1" || where=http://127.0.0.1:$SERVER_PORT/opendap/data/$1/
    healthy "$PORT" || fail "the data server does not answer on port $PORT; see: hyrax-server status"
    look_at "$1"
    [ -z "$problem" ] || fail "$1 is $state: $problem"
    fetch "$where" || fail "the listing $where is not served: $reason"
    listed=$code
    find_data "$1" >"$work/found" 2>/dev/null
    address='' why=''
    # The server's own list of types decides: the first file that it serves is shown.
    while IFS= read -r file; do
        file=${file#"$ROOT$DATA/$1/"}
        address=$where$(printf '%s' "$file" | perl -pe 's{([^A-Za-z0-9/._~-])}{sprintf "%%%02X", ord $1}ge').dds
        fetch "$address" && grep -q '^Dataset {' "$work/out" && break
        [ "$code" != 200 ] || reason="it answers, but not with a DDS"
        [ -n "$why" ] || why="$address is not served: $reason"
        address=''
        [ "$code" != 000 ] || break
    done <"$work/found"
    [ -s "$work/found" ] ||
        fail "no data file is found in $1, four levels deep ($(data_names | paste -s -d ' ')); if your files have other names, see: hyrax-server set types"
    [ -n "$address" ] || fail "$why"
    if [ -n "$json" ]; then
        json_object name "$1" listing "$where" file "$file" dds_url "$address" dds "$(cat "$work/out")"
    else
        say "listing: $where (HTTP $listed)"
        say "DDS:     $address"
        visible <"$work/out"
    fi
}

# data_names: patterns of data files' names, one a line: the usual ones, and those that were set with
# `hyrax-server set types`
data_names() {
    printf '*.%s\n' nc nc4 cdf h5 hdf5 he5 hdf
    server_setting TYPES | tr -s '[:blank:]' '\n' | sed 's/^[^:]*://'
}

# find_data NAME: prints the paths of some of its data files, one a line
find_data() {
    folder=$ROOT$DATA/$1
    set --
    while read -r pattern; do
        set -- "$@" -o -iname "$pattern"
    done <<END
$(data_names)
END
    shift
    # shellcheck disable=SC2016  # for the inner shell
    with_deadline 20 sh -c 'find "$@" | head -n 5' sh "$folder" -maxdepth 4 -name '.?*' -prune -o -type f \( "$@" \) ! -name '*
*' -print
}

# fetch URL: writes the answer to $work/out; sets code and reason
fetch() {
    code=$(curl -s -m 60 --globoff -o "$work/out" -w '%{http_code}' "$1")
    reason="HTTP $code; see: hyrax-server logs"
    [ "$code" != 000 ] || reason="no answer within 60 s; see: hyrax-server status"
    [ "$code" = 200 ]
}
