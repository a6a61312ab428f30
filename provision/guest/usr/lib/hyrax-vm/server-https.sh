# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-server
# hyrax-server https: HTTPS on port 443. Sourced by hyrax-server.
# shellcheck source=provision/guest/usr/lib/hyrax-vm/server-certificate.sh
. "$LIB/server-certificate.sh"
# shellcheck source=provision/guest/usr/lib/hyrax-vm/server-https-words.sh
. "$LIB/server-https-words.sh"

# https_options OPTION...: sets cert, key, host, email, directory, method, redirect, later, check
https_options() {
    cert='' key='' host='' email='' directory='' method='' redirect='' later='' check=''
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
        --*=*)
            set -- "${option#*=}" "$@"
            option=${option%%=*}
            ;;
        --cert | --key | --acme | --email | --host | --directory)
            [ $# -gt 0 ] || usage_error "$option needs a value; see: hyrax-server https --help"
            ;;
        esac
        case $option in
        --cert) cert=$1 && way files ;;
        --key) key=$1 && way files ;;
        --acme) host=$1 && way acme ;;
        --host) host=$1 ;;
        --email) email=$1 ;;
        --directory) directory=$1 ;;
        --self-signed) way self-signed && continue ;;
        --redirect) redirect=yes && continue ;;
        --no-redirect) redirect=no && continue ;;
        --later) later=yes && continue ;;
        --check) check=yes && continue ;;
        *) usage_error "'$(plain "$option")' is not an option of https; see: hyrax-server https --help" ;;
        esac
        shift
    done
}

# way METHOD: there is one way to a certificate
way() {
    [ "${method:-$1}" = "$1" ] || usage_error "choose one of --cert and --key, --self-signed, and --acme"
    method=$1
}

https() {
    for each; do
        shift
        case $each in
        --json) json=yes ;;
        -h | --help) https_help; exit 0 ;;
        *) set -- "$@" "$each" ;;
        esac
    done
    case ${1:-} in
    '') https_show ;;
    off | renew)
        [ $# -eq 1 ] || usage_error "$1 takes nothing after it"
        "https_$1"
        ;;
    *)
        https_options "$@"
        https_set
        ;;
    esac
}

https_set() {
    case $host in
    *[!A-Za-z0-9.:-]*) usage_error "'$(plain "$host")' is not a host name or an address" ;;
    esac
    case $method in
    files)
        case ${cert:+cert}${key:+key} in
        certkey) ;;
        *) usage_error "--cert and --key belong together; see: hyrax-server https --help" ;;
        esac
        [ -n "$check" ] || check_certificate
        ;;
    acme)
        # RFC 1123; an ACME server gives no certificate to a name without a dot.
        printf '%s\n' "$host" | grep -q -x -E '([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?' ||
            usage_error "'$(plain "$host")' is not a domain name; for example: --acme dap.example.org"
        printf '%s\n' "$email" | grep -q -x -E '[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,120}' ||
            usage_error "--acme needs --email ADDRESS, to which the issuer of the certificate writes"
        case $directory in
        '' | https://*[![:print:]]*) ;;
        https://*) ;;
        *) usage_error "'$(plain "$directory")' is not an https:// URL of an ACME server" ;;
        esac
        ;;
    self-signed) ;;
    '')
        [ -n "$redirect" ] || usage_error "name one of --cert and --key, --self-signed, and --acme; see: hyrax-server https --help"
        [ -n "$check" ] || [ -f "$HTTPS/settings" ] || usage_error "HTTPS is off; see: hyrax-server https --help"
        ;;
    esac
    [ -z "$check" ] || return 0
    lock https
    https_recover
    : "${redirect:=$(https_value REDIRECT)}"
    rm -rf "$HTTPS.new" "$HTTPS.old"
    mkdir -p "$HTTPS.new" || https_disk_full
    case $method in
    files) put_certificate "$cert" "$key" "$HTTPS.new/server.pem" || https_disk_full ;;
    self-signed) self_signed || https_disk_full ;;
    *) [ ! -d "$HTTPS" ] || cp -pR "$HTTPS/." "$HTTPS.new" || https_disk_full ;;
    esac
    case $method in
    '') sed "s/^REDIRECT=.*/REDIRECT=$redirect/" "$HTTPS/settings" ;;
    *) printf '%s\n' "METHOD=$method" "HOST=$host" "EMAIL=$email" "DIRECTORY=$directory" "REDIRECT=${redirect:-no}" ;;
    esac | write_file "$HTTPS.new/settings" || https_disk_full
    # Another server does not know the account, and uacme takes what it has for the new name's.
    [ "$method" != acme ] || [ "$(https_value HOST) $(https_value DIRECTORY)" = "$host $directory" ] ||
        rm -rf "$HTTPS.new/acme"
    https_use
    case $method:$later in
    acme:) https_issue ;;
    acme:yes) say "HTTPS begins as soon as $host has a certificate; to see why not yet: hyrax-server https" && return ;;
    esac
    rm -rf "$HTTPS.old"
    refresh_banner
    https_told
}

https_disk_full() {
    rm -rf "$HTTPS.new"
    fail "/etc/hyrax cannot be written; is the disk full? See: df -h"
}

# https_use: puts https.new in the place of https, if nginx takes it
https_use() {
    [ ! -d "$HTTPS.new" ] || sync -f "$HTTPS.new"
    [ ! -d "$HTTPS" ] || mv "$HTTPS" "$HTTPS.old"
    [ ! -d "$HTTPS.new" ] || mv "$HTTPS.new" "$HTTPS"
    sync "${HTTPS%/*}"
    if ! why=$("$LIB/front-door" 2>&1); then
        https_back
        usage_error "nginx does not accept this: $(plain_line "${why#front-door: }"); nothing was changed"
    fi
    https_reload
    [ "$(https_value METHOD)" != acme ] || https_is_on || return 0
    [ ! -d "$HTTPS" ] || https_answers || {
        https_back
        fail "port $HTTPS_PORT does not answer; nothing was changed; see: hyrax-server logs"
    }
}

# https_back: what was before is served again
https_back() {
    rm -rf "$HTTPS"
    [ ! -d "$HTTPS.old" ] || mv "$HTTPS.old" "$HTTPS"
    "$LIB/front-door" 2>/dev/null
    https_reload
}

https_reload() {
    systemctl try-reload-or-restart hyrax-front-door.service ||
        fail "the front door does not start; see: hyrax-server logs"
}

# https_answers: does nginx answer on port 443? At boot it does not run yet.
https_answers() {
    systemctl is-active --quiet hyrax-front-door.service || return 0
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ "$(curl -s -k -m 5 -o /dev/null -w '%{http_code}' "https://127.0.0.1:$HTTPS_PORT/health")" = 000 ] || return 0
        sleep 0.3
    done
    return 1
}

# https_issue: gets the certificate of an ACME server; without one, what was before is served again
https_issue() {
    acme_renew
    if [ $? -eq 2 ]; then
        reason=$(acme_reason)
        where=$(getent ahosts "$host" 2>/dev/null | cut -d ' ' -f 1 | sort -u | paste -s -d ' ')
        https_back
        fail "no certificate for $host: $reason. $host leads to ${where:-no address}, this VM is $(addresses | cut -d ' ' -f 2 | paste -s -d ' '): port 80 there must lead here. Nothing was changed"
    fi
    rm -f "$HTTPS_PROBLEM"
    "$LIB/front-door" || fail "nginx does not accept the new certificate; see: hyrax-server status"
    https_reload
}

https_renew() {
    [ "$(https_value METHOD)" = acme ] || usage_error "only a certificate from an ACME server can be renewed here; see: hyrax-server https --help"
    "$LIB/certificate" || exit 1
    https_show
}

https_off() {
    lock https
    https_recover
    rm -rf "$HTTPS.new" "$HTTPS.old"
    https_use
    rm -rf "$HTTPS.old" "$HTTPS_PROBLEM"
    refresh_banner
    if [ -n "$json" ]; then https_show; else say "HTTPS is off; data are served at $(base_url)"; fi
}
