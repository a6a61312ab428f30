# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup upgrades: the distribution's security upgrades every night. Sourced by hyrax-setup.
#
# /etc/hyrax/upgrades has what was set: UPGRADES=off, RESTART=HH:MM. /var/lib/hyrax/upgrades has what
# `upgrade` has found: CHECKED and INSTALLED (times), AWAY (why the mirror does not answer).

UPGRADES=$ROOT/etc/hyrax/upgrades

upgrades() {
    verb=${1:-status}
    [ $# -eq 0 ] || shift
    case $verb in
    on | off) set_upgrades "$@" ;;
    now)
        [ $# -eq 0 ] || usage_error "upgrades now takes nothing after it"
        "$LIB/upgrade" now
        ;;
    status)
        [ $# -eq 0 ] || usage_error "upgrades status takes nothing after it"
        upgrades_status
        ;;
    *) usage_error "'$(plain "$verb")' is not one of: on, off, now, status" ;;
    esac
}

# set_upgrades [--restart HH:MM|no] [--check]
set_upgrades() {
    restart=$(upgrade_value "$UPGRADES" RESTART) check=''
    while [ $# -gt 0 ]; do
        case $1 in
        --restart=*) restart=${1#*=} ;;
        --restart) restart=${2:-}; [ $# -eq 1 ] || shift ;;
        --check) check=yes ;;
        *) usage_error "'$(plain "$1")' is not an option of upgrades; see: hyrax-setup --help" ;;
        esac
        shift
    done
    case $restart in
    no) restart= ;;
    '' | [01][0-9]:[0-5][0-9] | 2[0-3]:[0-5][0-9]) ;;
    *) usage_error "'$(plain "$restart")' is not a time; expected: HH:MM, for example 03:30, or no" ;;
    esac
    [ -z "$check" ] || return 0
    [ -d "${UPGRADES%/*}" ] || mkdir -p "${UPGRADES%/*}"
    printf 'UPGRADES=%s\nRESTART=%s\n' "$verb" "$restart" | write_file "$UPGRADES" ||
        fail "$UPGRADES cannot be written; is the disk full? See: df -h"
    upgrades_status
}

upgrade_value() { [ ! -e "$1" ] || value_of "$2" "$1"; }

upgrades_status() {
    found=$ROOT/var/lib/hyrax/upgrades
    restart=$(upgrade_value "$UPGRADES" RESTART)
    if [ "$(upgrade_value "$UPGRADES" UPGRADES)" = off ]; then
        say "security upgrades: off; switch them on with: hyrax-setup upgrades on"
    elif [ -n "$restart" ]; then
        say "security upgrades: on, every night; a restart that they need is at $restart ($(date +%Z))"
    else
        say "security upgrades: on, every night; this VM does not restart by itself for them"
    fi
    installed=$(upgrade_value "$found" INSTALLED) checked=$(upgrade_value "$found" CHECKED) away=$(upgrade_value "$found" AWAY)
    say "last installed:    ${installed:-never}; last looked for: ${checked:-never}"
    [ -z "$away" ] || say "the mirror:        does not answer ($away); see: hyrax-network status, and /etc/apt/sources.list"
    say "by hand:           sudo hyrax-setup upgrades now"
    [ ! -e "$ROOT/run/reboot-required" ] || say "an upgrade needs a restart to take effect; type: sudo reboot"
}
