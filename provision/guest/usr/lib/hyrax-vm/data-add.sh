# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data add. Sourced by hyrax-data.

add() {
    typed= name= force= named= domain= password_file= vers=3.1.1 smb_only=
    while [ $# -gt 0 ]; do
        # --option=value is the same as --option value
        case $1 in
        --*=*)
            pair=$1
            shift
            set -- "${pair%%=*}" "${pair#*=}" "$@"
            ;;
        esac
        case $1 in
        --as | --user | --domain | --password-file | --vers) [ $# -gt 1 ] || no_value "$1" ;;
        esac
        case $1 in
        --user | --domain | --password-file | --vers) smb_only=$1 ;;
        esac
        case $1 in
        --as) name=$2; [ -n "$name" ] || bad_name; shift ;;
        --user) named=$2; [ -n "$named" ] || no_value "$1"; shift ;;
        --domain) domain=$2; shift ;;
        --password-file) password_file=$2; [ -n "$2" ] || no_value "$1"; shift ;;
        --vers) vers=$2; shift ;;
        --force) force=yes ;;
        -*) usage_error "'$(plain "$1")' is not an option of add; see: hyrax-data --help" ;;
        *)
            [ -z "$typed" ] || usage_error "add takes one URL; '$(plain "$1")' is one too many"
            typed=$1
            ;;
        esac
        shift
    done
    [ -n "$typed" ] || usage_error "add needs a URL; for example: hyrax-data add $(example)"
    parse_url "$typed" "$named" "$domain"
    check_access
    login=${smb_domain:+$smb_domain\\}$smb_user
    case $kind:$smb_only in
    nfs:?*) usage_error "$smb_only is for SMB shares, not for NFS exports" ;;
    esac
    case $vers in
    3.1.1 | 3.0.2 | 3.0 | 2.1) ;;
    *) usage_error "'$(plain "$vers")' is not a version of SMB that can be used (3.1.1, 3.0.2, 3.0, 2.1)" ;;
    esac
    if [ -z "$name" ]; then
        name=${path##*/}
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

    [ "$kind" != smb ] || smb_credentials
    verdict=ok
    if ! try "$("${kind}_options" "$work/credentials")"; then
        [ -n "$force" ] || fail "$problem. Nothing was changed (--force keeps it for later)."
        warn "$problem. Kept; it is tried again whenever it is read."
        verdict=
    fi

    undo=$name
    keep "$name" || fail "'$name' cannot be set up; nothing was kept"
    if [ -n "$verdict" ] && ! with_deadline 30 ls -d "$ROOT$DATA/$name/." >"$work/out" 2>&1; then
        fail "'$name' was mounted on trial, but not at $DATA/$name; see: journalctl -u $(unit "$name" mount)"
    fi
    undo=
    [ ! "$verdict" = empty ] || warn "the $(of_kind place) is empty; files put there appear by themselves"
    say "$(base_url)data/$name/"
    refresh_banner
}

no_value() {
    case $1 in
    --as) usage_error "--as needs a name; for example: --as sst-2020" ;;
    --user) usage_error "--user needs a name; for example: --user 'DOMAIN\\USER', in quotes" ;;
    *) usage_error "$1 needs a value; see: hyrax-data --help" ;;
    esac
}

# check_access: has this image the client that the URL needs?
check_access() {
    access=$(release ACCESS)
    [ "$kind" != "${access:-nfs}" ] || return 0
    other="get hyrax-vm-$kind-$(release SERVER)$(release SERVER_VERSION) instead"
    [ "$access" != local ] || other="$other, or copy the data to $DATA/NAME (hyrax-data --help says how)"
    usage_error "this image ($(release IMAGE)) has no client for $kind:// URLs; $other"
}

# try OPTIONS: mounts for a moment, out of sight. Sets verdict and, when it fails, problem.
try() {
    answer=$("$LIB/tcp-probe" "$host" "$port" 5)
    if [ "$answer" != open ]; then
        problem=$(words_for_probe "$answer")
        return 1
    fi
    "${kind}_probe" || return 1
    with_deadline 30 unshare --mount "$LIB/data-trial" "$(of_kind type)" "$("${kind}_source")" "$1" "$user" \
        >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" -ne 0 ]; then
        problem=$("${kind}_words" "$status")
        return 1
    fi
    verdict=$(cat "$work/out")
    problem=$(words_for_look "$verdict")
    case $verdict in
    forbidden) return 1 ;;
    forbidden-file*) warn "$problem" ;;
    esac
}
