# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-setup
# hyrax-setup: HTTPS. Sourced by hyrax-setup.

menu_https() {
    while choose Back "HTTPS" "$(PATH=$ROOT/usr/bin:$PATH hyrax-server https | head -n 1)" \
        acme "A certificate from Let's Encrypt: needs a name in the Internet" \
        files "A certificate that I have, as two files on this VM" \
        self-signed "A self-signed certificate: readers must be given it" \
        redirect "Send readers of port $PORT to HTTPS" \
        plain "Do not send them there" \
        status "What is set, and until when" \
        off "Undo all of it"; do
        "https_$(printf '%s' "$answer" | tr - _)"
    done
}

https_acme() {
    ask_some "HTTPS" "The name that readers use, for example dap.example.org. Port 80 of this name must lead to this VM." "$computer" || return 0
    computer=$answer
    ask_some "HTTPS" "Your e-mail address, to which Let's Encrypt writes when something is wrong:" "$(server_setting EMAIL)" || return 0
    perform hyrax-server https --acme "$computer" --email "$answer"
}

https_files() {
    ask_some "HTTPS" "The file on this VM with the certificate, and the issuers' after it (PEM):" "/home/$USER_NAME/cert.pem" || return 0
    place=$answer
    ask_some "HTTPS" "The file with its private key:" "/home/$USER_NAME/key.pem" || return 0
    key=$answer
    ask "HTTPS" "The name that readers use; leave this empty if this VM has it:" "$computer" || return 0
    perform hyrax-server https --cert "$place" --key "$key" ${answer:+--host "$answer"}
}

https_self_signed() {
    ask "HTTPS" "The name that readers use; leave this empty for this VM's address:" "$computer" || return 0
    perform hyrax-server https --self-signed ${answer:+--host "$answer"}
}

https_redirect() { perform hyrax-server https --redirect; }
https_plain() { perform hyrax-server https --no-redirect; }
https_status() { perform hyrax-server https; }
https_off() { ! confirm "HTTPS" "Forget the certificate and its key? Port $PORT is served on." || perform hyrax-server https off; }
