# shellcheck shell=sh disable=SC2034  # its variables are for the scripts that source it
# HTTPS of the front door: what is set and what its certificate says. Sourced by lib.sh.
#
# /etc/hyrax/https is there when HTTPS is on. It holds
#   settings    METHOD (files, self-signed or acme), HOST (the name that readers use), EMAIL,
#               DIRECTORY (the URL of the ACME server) and REDIRECT (yes)
#   server.pem  the certificate, its issuers and the key; in one file, so that they always fit
#   acme/       the account and the keys of uacme
# /run/hyrax/certificate.problem says why uacme could not renew the certificate.

HTTPS=$ROOT/etc/hyrax/https
HTTPS_PEM=$HTTPS/server.pem
HTTPS_PROBLEM=$ROOT/run/hyrax/certificate.problem
WARN_DAYS=30  # the banner warns when a certificate ends within this time
RENEW_DAYS=33 # uacme renews a little earlier

# https_value KEY
https_value() { [ ! -e "$HTTPS/settings" ] || value_of "$1" "$HTTPS/settings"; }

# https_is_on: is there a certificate to serve with?
https_is_on() { [ -s "$HTTPS_PEM" ]; }

https_url() { say "https://$(url_host "$(https_value HOST)")/opendap/"; }

# certificate_end FILE: the last second of its validity, as a Unix time
certificate_end() { date -d "$(openssl x509 -noout -enddate -in "$1" | cut -d = -f 2)" +%s; }

# certificate_days FILE: full days until it ends; negative when it has ended
certificate_days() { perl -MPOSIX=floor -e 'print floor(($ARGV[0] - time) / 86400)' "$(certificate_end "$1")"; }

certificate_date() { date -u -d "@$(certificate_end "$1")" +%Y-%m-%d; }

# certificate_state: what is wrong with the certificate of the front door; nothing when all is well
certificate_state() {
    problem=$(cat "$HTTPS_PROBLEM" 2>/dev/null)
    if ! https_is_on; then
        say "there is no certificate yet${problem:+: $problem}"
        return
    fi
    days=$(certificate_days "$HTTPS_PEM")
    if [ "$days" -lt 0 ]; then
        say "the certificate has ended on $(certificate_date "$HTTPS_PEM")${problem:+: $problem}"
    elif [ "$days" -lt "$WARN_DAYS" ]; then
        say "the certificate ends on $(certificate_date "$HTTPS_PEM")${problem:+: $problem}"
    fi
}

# put_certificate CHAIN KEY FILE: writes server.pem, which only nginx's user may read
put_certificate() (
    umask 077
    # A power cut may have left one that is nginx's. hyrax-certificate.service may not write into that.
    rm -f "$3.new"
    pem=$(sed -n '/^-----BEGIN CERTIFICATE/,/^-----END CERTIFICATE/p' "$1" && openssl pkey -in "$2") &&
        say "$pem" | write_file "$3" to_nginx
)
to_nginx() { [ -n "$ROOT" ] || chown hyrax-front-door: "$1"; }

# https_recover: when the power was cut between the two renames of https_use, what was before is served
https_recover() { [ -d "$HTTPS" ] || [ ! -d "$HTTPS.old" ] || mv "$HTTPS.old" "$HTTPS"; }

# uacme_run ARGUMENT...: runs uacme on the account in $HTTPS/acme
uacme_run() {
    uacme --confdir "$HTTPS/acme" --hook "$LIB/acme-challenge" --days "$RENEW_DAYS" --yes \
        ${directory:+--acme-url "$directory"} "$@" 2>&1
    set -- $?
    # uacme does not wait for the disk, and takes an empty file for an account.
    sync -f "$HTTPS"
    return "$1"
}

# acme_renew: gets a certificate if there is none or it ends soon, and puts it where nginx reads it.
# Status 0: there is a new one; 1: the present one is still good; 2: it failed, and said has the reason
acme_renew() {
    host=$(https_value HOST) email=$(https_value EMAIL) directory=$(https_value DIRECTORY)
    mkdir -p "$ROOT/run/hyrax/acme"
    if [ ! -f "$HTTPS/acme/private/key.pem" ]; then
        # A key without an account would be taken for an account.
        said=$(umask 077 && uacme_run new "$email") || {
            rm -rf "$HTTPS/acme"
            return 2
        }
    fi
    said=$(umask 077 && uacme_run issue "$host")
    status=$?
    [ "$status" -ne 1 ] || https_is_on || status=0
    [ "$status" -eq 0 ] || return "$status"
    put_certificate "$HTTPS/acme/$host/cert.pem" "$HTTPS/acme/private/$host/key.pem" "$HTTPS_PEM" || {
        said='the certificate cannot be written; is the disk full? See: df -h'
        return 2
    }
}

# acme_reason: the answer of the ACME server out of said, in one line
acme_reason() {
    detail=$(say "$said" | sed -n 's/.*"detail": *"\(.*\)".*/\1/p' | tail -n 1)
    [ -n "$detail" ] || detail=$(say "$said" | sed -n 's/^uacme: //p' | tail -n 1)
    plain_line "${detail:-$said}"
}
plain_line() { printf '%s' "$1" | tr '\n' ' ' | tr -c '[:print:]' '?' | cut -c 1-300; }
