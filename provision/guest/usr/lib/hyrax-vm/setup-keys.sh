# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup ssh-key: the keys that may log in over SSH. Sourced by hyrax-setup.

TYPES='ssh-ed25519 ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521 ssh-rsa
sk-ssh-ed25519@openssh.com sk-ecdsa-sha2-nistp256@openssh.com'

ssh_key() {
    verb=${1:-}
    [ $# -eq 0 ] || shift
    case $verb in
    add)
        check=
        for each; do
            shift
            if [ "$each" = --check ]; then check=yes; else set -- "$@" "$each"; fi
        done
        [ $# -le 1 ] || usage_error "ssh-key add takes one key, in quotes, or the name of its file"
        add_key "${1:--}"
        ;;
    list)
        [ $# -eq 0 ] || usage_error "ssh-key list takes nothing after it"
        [ -n "$(key_rows)" ] || say "no keys yet; add one with: hyrax-setup ssh-key add 'ssh-ed25519 AAAA...'" >&2
        key_rows
        ;;
    remove)
        [ $# -eq 1 ] || usage_error "ssh-key remove takes a number or a fingerprint; see: hyrax-setup ssh-key list"
        remove_keys "$1"
        ;;
    *) usage_error "'$(plain "$verb")' is not a command of ssh-key (add, list, remove); see: hyrax-setup --help" ;;
    esac
}

# as_user COMMAND...: runs it as the user to whom the file belongs
as_user() {
    if [ -n "$ROOT" ]; then
        "$@"
    else
        setpriv --reuid "$USER_NAME" --regid "$USER_NAME" --init-groups --reset-env -- "$@"
    fi
}

keys_file() { printf '%s/home/%s/.ssh/authorized_keys' "$ROOT" "$USER_NAME"; }

read_keys() { as_user cat "$(keys_file)" 2>/dev/null; }

# write_keys < content. In a pipe its failure ends only the pipe: add || exit.
write_keys() {
    # shellcheck disable=SC2016  # for the inner shell
    as_user sh -c '. "$1/lib.sh"; umask 077; mkdir -p "${2%/*}" && write_file "$2"' \
        sh "$LIB" "$(keys_file)" || fail "$(keys_file) cannot be written; is the disk full? See: df -h"
}

# fingerprint KEY: prints SHA256:...; status 1 when KEY is not a key
fingerprint() {
    about=$(printf '%s\n' "$1" | ssh-keygen -l -f - 2>/dev/null) || return 1
    about=${about#* }
    say "${about%% *}"
}

# key_rows: prints NUMBER, FINGERPRINT, COMMENT and TYPE of each line that is a key
key_rows() {
    read_keys | {
        number=0
        while IFS= read -r line; do
            about=$(printf '%s\n' "$line" | ssh-keygen -l -f - 2>/dev/null) || continue
            number=$((number + 1))
            printf '%-3s %s\n' "$number" "$(plain "${about#* }")"
        done
    }
}

add_key() {
    if [ "$1" = - ] && [ -t 0 ]; then
        say "Paste the public key, then press Enter:" >&2
        IFS= read -r key || :
    elif [ "$1" = - ]; then
        key=$(head -c 20000)
    elif [ -f "$1" ]; then
        key=$(head -c 20000 "$1") || usage_error "'$(plain "$1")' cannot be read"
    else
        key=$1
    fi
    key=${key%"$(printf '\r')"}
    check_key
    [ -z "$check" ] || return 0
    lock keys
    ! key_rows | grep -q -F -- "$print" || {
        say "this key may log in already: $print"
        return 0
    }
    # awk: an editor may have left the last line without its newline.
    { read_keys | awk 1; printf '%s\n' "$key"; } | write_keys || exit
    say "this key may log in now: $print"
    systemctl is-enabled --quiet "$SSH_UNIT" || say "SSH is switched off; to switch it on, type: sudo systemctl enable --now $SSH_UNIT"
}

# check_key: is $key one public key and nothing else? Sets print.
# Options before a key could run commands and open ports. An administrator who needs them can edit
# the file.
check_key() {
    case $key in
    '') usage_error "there is no key; it is the line in the file .ssh/id_ed25519.pub on the other computer" ;;
    *"PRIVATE KEY"*) usage_error "this is a private key, which must not leave its owner's computer; use the file beside it that ends in .pub" ;;
    *[![:print:]]*) usage_error "a key must be one line of plain characters; add several keys one after the other" ;;
    esac
    type=${key%% *}
    case " $(printf '%s' "$TYPES" | tr '\n' ' ') " in
    *" $type "*) ;;
    *)
        for each in $TYPES; do
            case $key in
            *" $each AAAA"*) usage_error "options before the key are not accepted; begin with $each" ;;
            esac
        done
        usage_error "'$(plain "$type")' is neither a type of key that SSH accepts (ssh-ed25519, ecdsa-sha2-nistp256, ssh-rsa ...) nor a file"
        ;;
    esac
    print=$(fingerprint "$key") ||
        usage_error "this $type key is damaged; copy the whole line, from '$type' to its end"
}

# remove_keys NUMBER|FINGERPRINT
remove_keys() {
    lock keys
    print=$(key_rows | awk -v which="$1" '$1 == which || $2 == which { print $2; exit }')
    [ -n "$print" ] || usage_error "no key has the number or fingerprint '$(plain "$1")'; see: hyrax-setup ssh-key list"
    read_keys | while IFS= read -r line || [ -n "$line" ]; do
        [ "$(fingerprint "$line")" = "$print" ] || printf '%s\n' "$line"
    done | write_keys || exit
    say "this key may not log in any more: $print"
}
