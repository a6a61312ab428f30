# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup save and apply: all settings of this VM in one file. Sourced by hyrax-setup.

# A file with secrets begins with this, and `openssl enc` has made the rest.
ENCRYPTED='# Settings of a Hyrax VM, encrypted'
# 600,000 rounds: each guess of the passphrase takes an attacker a second of a processor.
CIPHER='-aes-256-cbc -pbkdf2 -iter 600000 -a'

save() {
    file='' secrets=''
    for each; do
        case $each in
        --secrets) secrets=secrets ;;
        -*) usage_error "'$(plain "$each")' is not an option of save; see: hyrax-setup --help" ;;
        *)
            [ -z "$file" ] || usage_error "save takes the name of one file; '$(plain "$each")' is one too many"
            file=$each
            ;;
        esac
    done
    if [ -z "$file" ] || [ -d "$file" ]; then
        usage_error "save needs the name of a file; for example: hyrax-setup save hyrax.toml"
    fi
    check_folder
    need_work
    "$LIB/settings-save" $secrets >"$work/settings" 2>"$work/left" || fail "the settings cannot be read: $(tail -n 1 "$work/left")"
    if [ -n "$secrets" ]; then
        ask_passphrase again
        say "$ENCRYPTED. To apply it: hyrax-setup apply FILE" >"$work/file"
        say "# To read it: tail -n +3 FILE | openssl enc -d $CIPHER" >>"$work/file"
        # shellcheck disable=SC2086  # options
        say "$passphrase" | openssl enc $CIPHER -pass stdin -in "$work/settings" >>"$work/file" || fail "openssl cannot encrypt the settings"
    else
        mv "$work/settings" "$work/file"
    fi
    for_user cat "$work/file"
    while IFS= read -r line; do warn "$line"; done <"$work/left"
    say "the settings are in $file; for another VM: hyrax-setup apply FILE"
}

# ask_passphrase [again]: sets passphrase
ask_passphrase() {
    if [ -t 0 ]; then
        terminal=$(stty -g)
        stty -echo
        printf 'Passphrase: ' >&2
        IFS= read -r passphrase || :
        second=$passphrase
        [ -z "${1:-}" ] || { printf '\nThe same again: ' >&2; IFS= read -r second || :; }
        stty "$terminal"
        terminal=
        echo >&2
        [ "$passphrase" = "$second" ] || usage_error "the two passphrases differ; nothing was changed"
    else
        IFS= read -r passphrase || :
    fi
    [ -n "$passphrase" ] || usage_error "the file needs a passphrase; type it, or give it as the first line of the standard input"
}

apply() {
    [ $# -eq 1 ] || usage_error "apply takes a settings file; for example: hyrax-setup apply /etc/hyrax/hyrax.toml"
    if head -n 1 "$1" 2>/dev/null | grep -q -x -F -e "$ENCRYPTED. To apply it: hyrax-setup apply FILE"; then
        ask_passphrase
        need_work
        tail -n +3 "$1" >"$work/secret"
        # shellcheck disable=SC2086  # options
        say "$passphrase" | openssl enc -d $CIPHER -pass stdin -in "$work/secret" >"$work/settings" 2>/dev/null
        # Not openssl's status: one wrong passphrase in 256 decrypts to something.
        head -n 1 "$work/settings" | grep -q '^# Settings of a Hyrax VM' ||
            usage_error "'$(plain "$1")' cannot be read with this passphrase; nothing was changed"
        "$LIB/settings-boot" "$work/settings" "$1"
    else
        "$LIB/settings-boot" "$1"
    fi
}
