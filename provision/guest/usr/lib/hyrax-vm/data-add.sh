# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data add. Sourced by hyrax-data.

add() {
    url= name= force=
    while [ $# -gt 0 ]; do
        case $1 in
        --as)
            [ $# -gt 1 ] || usage_error "--as needs a name; for example: --as sst-2020"
            name=$2
            [ -n "$name" ] || bad_name
            shift
            ;;
        --as=*) name=${1#--as=}; [ -n "$name" ] || bad_name ;;
        --force) force=yes ;;
        -*) usage_error "'$(plain "$1")' is not an option of add; see: hyrax-data --help" ;;
        *)
            [ -z "$url" ] || usage_error "add takes one URL; '$(plain "$1")' is one too many"
            url=$1
            ;;
        esac
        shift
    done
    [ -n "$url" ] || usage_error "add needs a URL; for example: hyrax-data add nfs://192.168.1.10/export/sst"
    check_access "$url"
    parse_url "$url"
    if [ -z "$name" ]; then
        name=${export##*/}
        [ -n "$name" ] || usage_error "the export '/' gives no name; choose one: hyrax-data add $url --as sst"
    fi
    check_name "$name"
    lock
    [ ! -f "$CONF/$name.conf" ] ||
        usage_error "'$name' is in use for $(data_url "$name"); type first: hyrax-data remove $name; or choose another name with --as"
    # Units without a .conf are what a power cut leaves of an add.
    [ ! -f "$UNITS/$(unit "$name" automount)" ] || discard "$name"
    [ ! -d "$ROOT$DATA/$name" ] || rmdir "$ROOT$DATA/$name" 2>/dev/null ||
        usage_error "$DATA/$name holds files of this VM; choose another name with --as"

    options=$(mount_options "$port")
    verdict=ok
    if ! try "$options"; then
        [ -n "$force" ] || fail "$problem. Nothing was changed (--force keeps it for later)."
        warn "$problem. Kept; it is tried again whenever it is read."
        verdict=
    fi

    undo=$name
    keep "$name" "$url" "$host:$export" "$options" || fail "'$name' cannot be set up; nothing was kept"
    if [ -n "$verdict" ] && ! with_deadline 30 ls -d "$ROOT$DATA/$name/." >"$work/out" 2>&1; then
        fail "'$name' was mounted on trial, but not at $DATA/$name; see: journalctl -u $(unit "$name" mount)"
    fi
    undo=
    [ ! "$verdict" = empty ] || warn "the export is empty; files put there appear by themselves"
    say "$(base_url)data/$name/"
    refresh_banner
}

# check_access URL: has this image the client that the URL needs?
check_access() {
    access=$(release ACCESS)
    case $1 in
    [Ss][Mm][Bb]:* | \\\\*) want=smb ;;
    [Nn][Ff][Ss]:*) want=nfs ;;
    *) return 0 ;;
    esac
    [ "$want" = "${access:-nfs}" ] || usage_error "this image ($(release IMAGE)) has no client for $want; \
get the image '$want' of Hyrax VM $(release VERSION)"
}

# try OPTIONS: mounts for a moment, out of sight. Sets verdict and, when it fails, problem.
try() {
    answer=$("$LIB/tcp-probe" "$host" "$port" 5)
    if [ "$answer" != open ]; then
        problem=$(words_for_probe "$answer" "$host" "$port")
        return 1
    fi
    with_deadline 30 unshare --mount "$LIB/nfs-trial" "$host:$export" "$1" "$user" \
        >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" -ne 0 ]; then
        problem=$(words_for_mount "$status" "$(tail -n 1 "$work/err")" "$host" "$port" "$export")
        return 1
    fi
    verdict=$(cat "$work/out")
    problem=$(words_for_look "$verdict" "$user" "$export")
    case $verdict in
    forbidden) return 1 ;;
    forbidden-file*) warn "$problem" ;;
    esac
}
