# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup keyboard: the layout of the console's keyboard. Sourced by hyrax-setup.

KEYMAPS=$ROOT/usr/share/keymaps # of the package console-data
KEYBOARD=$ROOT/etc/hyrax/keyboard

# layout: prints the one that is set
layout() {
    now=$(value_of KEYMAP "$KEYBOARD" 2>/dev/null)
    now=${now##*/}
    say "${now%.kmap.gz}" | grep . || say us
}

keyboard() {
    clock_options "$@"
    [ -n "$value" ] || { layout; return; }
    case $value in
    default) value=us ;;
    .* | *[!A-Za-z0-9_.-]*) bad_keyboard ;;
    esac
    # ./inv settings checks a file on a computer that has no such folder.
    [ -z "$check" ] || [ -d "$KEYMAPS" ] || return 0
    keymap=$(find "$KEYMAPS/i386" -name include -prune -o -name "$value.kmap.gz" -print 2>/dev/null | sort | head -n 1)
    [ -n "$keymap" ] || bad_keyboard
    [ -z "$check" ] || return 0
    lock keyboard
    { mkdir -p "${KEYBOARD%/*}" && say "KEYMAP=${keymap#"$ROOT"}" | write_file "$KEYBOARD"; } ||
        fail "/etc/hyrax/keyboard cannot be written; is the disk full? See: df -h"
    systemctl restart hyrax-keyboard.service || fail "the layout was saved, but not loaded; see: journalctl -u hyrax-keyboard"
    say "the console's keyboard layout is now $value"
}

menu_keyboard() {
    ! ask_some "Keyboard" "The layout of the keyboard at this VM's console, for example de, fr, fr_CH, uk or us:" "$(layout)" ||
        perform sudo hyrax-setup keyboard "$answer"
}

bad_keyboard() {
    usage_error "'$(plain "$value")' is not a keyboard layout; for example: de, fr, fr_CH, uk, us; to list all: find /usr/share/keymaps/i386 -name '*.kmap.gz'"
}
