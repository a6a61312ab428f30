# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-server
# hyrax-server https: checks a certificate that the administrator has, and makes a self-signed one.
# Sourced by server-https.sh.

# check_certificate: does it fit its key and this VM, and is it valid now? Sets host.
check_certificate() {
    for each in "$cert" "$key"; do
        [ -f "$each" ] || usage_error "'$(plain "$each")' is not a file; name a PEM file"
    done
    # openssl takes DER too, nginx does not.
    public=$(sed -n '/^-----BEGIN CERTIFICATE/,$p' "$cert" | openssl x509 -noout -pubkey 2>/dev/null) ||
        usage_error "'$(plain "$cert")' is not a certificate in PEM form; a DER file becomes one with: openssl x509 -inform der -in FILE -out FILE.pem"
    ! grep -q ENCRYPTED "$key" ||
        usage_error "'$(plain "$key")' needs a passphrase; nobody types one when a server starts. Remove it with: openssl pkey -in FILE -out NEW"
    private=$(openssl pkey -pubout -in "$key" -passin pass: 2>/dev/null) ||
        usage_error "'$(plain "$key")' is not a private key in PEM form"
    [ "$public" = "$private" ] ||
        usage_error "the certificate '$(plain "$cert")' does not fit the key '$(plain "$key")': it was made for another key, or its own certificate is not the first in the file"
    openssl x509 -noout -checkend 0 -in "$cert" >/dev/null ||
        usage_error "the certificate has ended on $(certificate_date "$cert"); get a new one"
    start=$(date -d "$(openssl x509 -noout -startdate -in "$cert" | cut -d = -f 2)" +%s)
    [ "$start" -le "$(date +%s)" ] ||
        usage_error "the certificate begins on $(date -u -d "@$start" +%Y-%m-%d); if that is past, the clock is wrong: date"
    if [ -n "$host" ]; then
        is_for "$host" || usage_error "the certificate is for $(names_of), not for '$(plain "$host")'"
    else
        host=$(host_of) ||
            usage_error "the certificate is for $(names_of), and this VM is $(names_here | paste -s -d ' '); if readers use another name, add: --host NAME"
    fi
    openssl verify -CApath /etc/ssl/certs -untrusted "$cert" "$cert" >/dev/null 2>&1 ||
        warn "readers' computers must trust the issuer of this certificate; Debian's list of issuers does not have it, or the file lacks the certificates between"
}

# is_for NAME: does the certificate name it?
is_for() {
    case $1 in
    *:* | *[0-9].*[0-9].*[0-9].*[0-9]) openssl x509 -noout -checkip "$1" -in "$cert" ;;
    *) openssl x509 -noout -checkhost "$1" -in "$cert" ;;
    esac 2>/dev/null | grep -q 'does match'
}

# names_of: the names in the certificate, for people
names_of() {
    names=$(openssl x509 -noout -ext subjectAltName -in "$cert" 2>/dev/null | sed -n 's/^ *\(DNS:.*\|IP Address:.*\)/\1/p' |
        sed 's/DNS://g; s/IP Address://g; s/, / /g')
    plain "${names:-nobody}"
}

# names_here: the names and addresses of this VM, one a line
names_here() {
    uname -n
    addresses | cut -d ' ' -f 2
}

# host_of: the name in the certificate under which this VM is reached
host_of() {
    for each in $(names_here); do
        if is_for "$each"; then
            say "$each"
            return
        fi
    done
    here=$(addresses | cut -d ' ' -f 2)
    for each in $(names_of); do
        if getent ahosts "$each" 2>/dev/null | cut -d ' ' -f 1 | grep -q -x -F -e "$here"; then
            say "$each"
            return
        fi
    done
    return 1
}

# self_signed: makes a certificate for all names of this VM; sets host
self_signed() {
    first=$(addresses | sed -n '1s/^[^ ]* //p')
    : "${host:=${first:-$(uname -n)}}"
    names=$({ say "$host"; names_here; } | awk '!seen[$0]++ { print (/:/ || /^[0-9.]+$/ ? "IP:" : "DNS:") $0 }' | paste -s -d ,)
    # 825 days: the most that macOS accepts
    (
        umask 077
        cat >"$HTTPS.new/request" <<END_OF_REQUEST
[req]
distinguished_name = name
x509_extensions = server
prompt = no
[name]
CN = $(printf '%s' "$host" | cut -c 1-64)
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = $names
END_OF_REQUEST
        openssl req -x509 -config "$HTTPS.new/request" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
            -noenc -days 825 -keyout "$HTTPS.new/key" -out "$HTTPS.new/certificate" 2>/dev/null
    ) && put_certificate "$HTTPS.new/certificate" "$HTTPS.new/key" "$HTTPS.new/server.pem" &&
        rm "$HTTPS.new/request" "$HTTPS.new/key" "$HTTPS.new/certificate"
}
