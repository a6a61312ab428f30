# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data restrict and unrestrict. Sourced by hyrax-data.

restrict_help() {
    cat <<END_OF_HELP
hyrax-data restrict NAME --user USER | --file FILE [OPTIONS]

Only readers with a password get at the data set, and only over HTTPS (see:
hyrax-server https --help). All other data sets stay open.
  --user USER           add USER, or change the password; hyrax-data asks for
                        it, or reads the first line of the standard input
  --file FILE           take the users of an htpasswd file (- for the standard
                        input) in place of the present ones
  --remove USER         this user gets in no more
  --hidden              leave it out of listings and the landing page; --shown
                        undoes it
  --later               the data set is added later
  --check               only check this command line; change nothing
  --json                keys: name, users, hidden; or error
hyrax-data unrestrict NAME opens it for everybody.
END_OF_HELP
}

restrict() {
    name='' person='' file='' gone='' hidden='' later='' check='' password_file='' hash=''
    while [ $# -gt 0 ]; do
        case $1 in
        --*=*)
            pair=$1
            shift
            set -- "${pair%%=*}" "${pair#*=}" "$@"
            ;;
        esac
        case $1 in
        --user | --file | --remove) [ -n "${2:-}" ] || usage_error "$1 needs a value; see: hyrax-data restrict --help" ;;
        esac
        case $1 in
        --user) person=$2; shift ;;
        --file) file=$2; shift ;;
        --remove) gone=$2; shift ;;
        --hidden) hidden=yes ;;
        --shown) hidden=no ;;
        --later) later=yes ;;
        --check) check=yes ;;
        -*) usage_error "'$(plain "$1")' is not an option of restrict; see: hyrax-data restrict --help" ;;
        *)
            [ -z "$name" ] || usage_error "restrict takes one name; see: hyrax-data list"
            name=$1
            ;;
        esac
        shift
    done
    [ -n "$name" ] || usage_error "restrict needs the name of a data set; see: hyrax-data list"
    check_name "$name"
    for each in "$person" "$gone"; do
        printf '%s' "$each" | grep -q -E '^[A-Za-z0-9._@-]{1,64}$' || [ -z "$each" ] ||
            usage_error "'$(plain "$each")' cannot be a user: use at most 64 letters, digits, '.', '_', '-' and '@'"
    done
    [ -n "$person$file$gone" ] || is_restricted "$name" ||
        usage_error "restrict needs --user USER or --file FILE; see: hyrax-data restrict --help"
    [ "$hidden" != yes ] || [ -n "$(hidden_under)" ] ||
        usage_error "--hidden works with Hyrax and dapdir only: the listings of this server are not known"
    [ -n "$later" ] || [ -n "$check" ] || check_known "$name"
    [ -z "$person" ] || [ -n "$check" ] || new_hash
    [ -n "$check" ] || lock_data
    new_users
    [ -z "$check" ] || return 0
    { mkdir -p "$RESTRICT" && for_nginx 750 "$RESTRICT" && put_mark &&
        (umask 027 && write_file "$present" for_nginx 640 <"$work/users"); } ||
        fail "/etc/hyrax cannot be written; is the disk full? See: df -h"
    use_restrictions
    told_restriction
}

# for_nginx MODE PATH: root writes it, and nginx reads it
for_nginx() { { [ -n "$ROOT" ] || chgrp hyrax-front-door "$2"; } && chmod "$1" "$2"; }

# new_hash: asks for the password of $person; sets hash
new_hash() {
    login=$person host="data set $name" guest_hint=''
    read_password
    [ ${#password} -ge 8 ] || usage_error "the password has ${#password} characters; it needs 8 or more"
    hash=$(printf '%s\n' "$password" | openssl passwd -6 -stdin) || fail "openssl cannot make a hash"
    password=
}

# new_users: writes the lines of the new htpasswd file to $work/users
new_users() {
    present=$RESTRICT/$name.htpasswd
    if [ -n "$file" ]; then
        if [ "$file" = - ]; then cat; else cat "$file" 2>/dev/null; fi | head -c 1000000 | tr -d '\r' | grep . >"$work/users" ||
            usage_error "'$(plain "$file")' has no users; name an htpasswd file, as 'htpasswd -B' writes it"
        # crypt(5) and Apache's own; a password that is not hashed is refused.
        # shellcheck disable=SC2016  # a pattern: nothing is to be expanded
        bad=$(grep -v -n -x -E '[A-Za-z0-9._@-]{1,64}:(\$(apr1|1|5|6|y|2[aby])\$[./A-Za-z0-9$=]{8,200}|\{SSHA\}[A-Za-z0-9+/=]+)' "$work/users" | head -n 1 | cut -d : -f 1)
        [ -z "$bad" ] || usage_error "line $bad of '$(plain "$file")' is not USER:HASH; make such lines with: htpasswd -B, or openssl passwd -6"
    else
        grep -v -e "^$person:" "$present" >"$work/users" 2>/dev/null || [ -z "$person" ] || : >"$work/users"
    fi
    [ -z "$hash" ] || printf '%s:%s\n' "$person" "$hash" >>"$work/users"
    if [ -n "$gone" ]; then
        grep -q -e "^$gone:" "$work/users" || usage_error "'$gone' is not a user of $name; its users: $(users_of "$name" | paste -s -d ' ')"
        grep -v -e "^$gone:" "$work/users" >"$work/fewer" || [ -n "$check" ] ||
            usage_error "'$gone' is the last user of $name; to open it for everybody: hyrax-data unrestrict $name"
        mv "$work/fewer" "$work/users"
    fi
}

# put_mark: makes or removes the mark of a hidden data set. Before the users, as it means nothing without.
put_mark() {
    case $hidden in
    yes) write_file "$RESTRICT/$name.hidden" </dev/null ;;
    no) delete_file "$RESTRICT/$name.hidden" ;;
    esac
}

# use_restrictions: nginx reads the list of restricted data sets; the users it reads at each request
use_restrictions() {
    why=$("$LIB/front-door" 2>&1) || fail "nginx does not accept this: $(plain "$why"); see: hyrax-server status"
    systemctl try-reload-or-restart hyrax-front-door.service || fail "the front door does not start; see: hyrax-server logs"
    [ -n "$later" ] || refresh_banner
}

told_restriction() {
    if [ -n "$json" ]; then
        json_object name "$name" users:json "$(users_json "$name")" hidden:flag "$(is_hidden "$name" && say yes)"
        return
    fi
    say "$name is for $(users_of "$name" | paste -s -d ' ')$(! is_hidden "$name" || say ', and hidden')"
    if https_is_on; then
        say "over HTTPS: $(https_url)data/$name/"
    elif [ -z "$(server_setting PROXY)" ]; then
        warn "HTTPS is off, so nobody can read $name; see: hyrax-server https --help"
    fi
}

users_json() { users_of "$1" | sed 's/.*/"&"/' | json_array; }

unrestrict() {
    [ $# -eq 1 ] || usage_error "unrestrict takes one name; see: hyrax-data list"
    check_name "$1"
    is_restricted "$1" || usage_error "'$1' is not restricted; see: hyrax-data list"
    lock_data
    delete_file "$RESTRICT/$1.htpasswd" "$RESTRICT/$1.hidden"
    later=
    use_restrictions
    if [ -n "$json" ]; then json_object name "$1" users:json '[]' hidden:flag ''; else say "$1 is open for everybody"; fi
}
