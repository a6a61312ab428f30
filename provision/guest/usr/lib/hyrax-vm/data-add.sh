# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data add. Sourced by hyrax-data.

add() {
    read_arguments "$@"
    [ -z "$check" ] || return 0
    lock_data
    [ ! -f "$CONF/$name.conf" ] || [ -n "$replace" ] ||
        usage_error "'$name' is in use for $(data_url "$name"); add --replace to replace it, or choose another name with --as"
    ! is_local "$name" || rmdir "$ROOT$DATA/$name" 2>/dev/null ||
        usage_error "$DATA/$name already holds files on this VM's own disk; choose another name with --as"

    [ "$kind" != smb ] || smb_credentials
    verdict=
    [ -n "$later" ] || try_it
    former='nothing was kept'
    [ ! -f "$CONF/$name.conf" ] || former='the former one is served on'
    begin "$name" keep || fail "$UNDO cannot be written; is the disk full? See: df -h"
    # The data set to be replaced, or units whose .conf somebody has deleted.
    [ ! -f "$UNITS/$(unit "$name" automount)" ] || discard "$name"
    keep "$name" || fail "'$name' cannot be set up; $former"
    if [ -n "$verdict" ] && ! with_deadline 30 ls -d "$ROOT$DATA/$name/." >"$work/out" 2>&1; then
        fail "a trial mount of '$name' worked, but mounting it at $DATA/$name did not; $former; see: journalctl -u $(unit "$name" mount)"
    fi
    settled "$name"
    if [ -n "$json" ]; then
        described "$name" warning:text "$warning"
    else
        say "$(base_url)data/$name/"
    fi
    [ -n "$later" ] || refresh_banner
}

# read_arguments ARGUMENT...: reads the arguments of add, and checks what it can without the network
read_arguments() {
    typed= name= force= later= check= replace= named= domain= password_file= vers= extra= only=
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
        --as | --user | --domain | --password-file | --nfs-version | --smb-version | --options)
            [ $# -gt 1 ] || no_value "$1" ;;
        esac
        case $1 in
        --user | --domain | --password-file | --smb-version) only="smb $1" ;;
        --nfs-version) only="nfs $1" ;;
        esac
        case $1 in
        --as) name=$2; [ -n "$name" ] || bad_name; shift ;;
        --user) named=$2; [ -n "$named" ] || no_value "$1"; shift ;;
        --domain) domain=$2; shift ;;
        --password-file) password_file=$2; [ -n "$2" ] || no_value "$1"; shift ;;
        --nfs-version | --smb-version) vers=$2; [ -n "$2" ] || no_value "$1"; shift ;;
        --options) extra=${extra:+$extra,}$2; [ -n "$2" ] || no_value "$1"; shift ;;
        --force) force=yes ;;
        --later) later=yes ;;
        --replace) replace=yes ;;
        --check) check=yes ;;
        -*) usage_error "'$(plain "$1")' is not an option of add; see: hyrax-data add --help" ;;
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
    case $kind:$only in
    nfs:smb*) usage_error "${only#* } is for SMB shares, not for NFS exports" ;;
    smb:nfs*) usage_error "${only#* } is for NFS exports, not for SMB shares" ;;
    esac
    check_version
    check_options "$extra"
    if [ -z "$name" ]; then
        name=${path##*/}
        [ -n "$name" ] || usage_error "the export '/' has no name to use; choose one: hyrax-data add $url --as sst"
    fi
    check_name "$name"
}

no_value() {
    case $1 in
    --as) usage_error "--as needs a name; for example: --as sst-2020" ;;
    --user) usage_error "--user needs a name; for example: --user 'DOMAIN\\USER', in quotes" ;;
    *) usage_error "$1 needs a value; see: hyrax-data add --help" ;;
    esac
}

# check_access: does this image have the client that the URL needs?
check_access() {
    access=$(release ACCESS)
    [ "$kind" != "${access:-nfs}" ] || return 0
    other="get hyrax-vm-$kind-$(release SERVER)$(release SERVER_VERSION) instead"
    [ "$access" != local ] || other="$other, or copy the data to $DATA/NAME (hyrax-data --help says how)"
    usage_error "this image ($(release IMAGE)) has no client for $kind:// URLs; $other"
}

# check_version: sets vers if it is empty; the first of the kind's versions is the default
check_version() {
    versions=$(of_kind versions)
    [ -n "$vers" ] || vers=${versions%% *}
    case " $versions " in
    *" $vers "*) ;;
    *) usage_error "'$(plain "$vers")' is not a version of $(of_kind protocol) that can be used; expected one of: $(say "$versions" | sed 's/ /, /g')" ;;
    esac
}

# check_options OPTIONS: allows only options of the kind's list, with a value from the option's range
# or words. Other options could make the data writable, or hide that a file server is dead.
check_options() {
    allowed=$("${kind}_allowed")
    why="the mount options that can be given are: $(say "$allowed" | paste -s -d ' ' | sed 's/ /, /g')"
    case $1 in
    *[!a-z0-9_=,]*) usage_error "'$(plain "$1")' must contain only lower-case letters, digits, _, = and commas; $why" ;;
    esac
    rest=$1
    while [ -n "$rest" ]; do
        option=${rest%%,*}
        case $rest in
        *,*) rest=${rest#*,} ;;
        *) rest= ;;
        esac
        # An option without a value is in the list as it is.
        ! say "$allowed" | grep -qxF -- "$option" || continue
        value=${option#*=}
        range=$(say "$allowed" | sed -n "s/^${option%%=*}=//p")
        case $option:$range in
        *=*:*[0-9]-*)
            case $value in
            '' | *[!0-9]* | 0?* | ?????????*) ;;
            *) [ "$value" -lt "${range%-*}" ] || [ "$value" -gt "${range#*-}" ] || continue ;;
            esac
            ;;
        *=*:?*)
            case "|$range|" in
            *"|$value|"*) continue ;;
            esac
            ;;
        esac
        usage_error "'$(plain "$option")' cannot be used; $why"
    done
}

# try_it: reports what is wrong before anything is changed. Sets verdict; an empty one means that
# the data set is kept although it cannot be used now.
try_it() {
    if probe && try_mount "$("${kind}_options" "$work/credentials")" 30; then
        case $verdict in
        forbidden) ;;
        forbidden-file*) note "$problem"; return ;;
        empty) note "the $(of_kind place) is empty; files put there later appear by themselves"; return ;;
        *) return ;;
        esac
    fi
    [ -n "$force" ] || fail "$problem. Nothing was changed (to add it all the same, use --force)."
    note "$problem. The data set is kept; this VM tries again whenever somebody reads it."
    verdict=
}

# note WORDS: a warning to the user; the command goes on
warning=
note() {
    if [ -n "$json" ]; then warning=${warning:+$warning; }$*; else warn "$@"; fi
}
