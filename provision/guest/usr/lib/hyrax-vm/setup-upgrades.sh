# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup upgrades: the distribution's security upgrades every night. Sourced by hyrax-setup.
#
# The package that does it is not in the image: without a mirror it is of no use, and it needs
# Python, which not every image has.

APT_CONF=$ROOT/etc/apt/apt.conf.d/52hyrax-upgrades
TIMERS='apt-daily.timer apt-daily-upgrade.timer'

upgrades() {
    [ $# -le 1 ] || usage_error "upgrades takes one of: on, off, status"
    case ${1:-status} in
    on) upgrades_on ;;
    off) upgrades_off ;;
    status) upgrades_status ;;
    *) usage_error "'$(plain "$1")' is not one of: on, off, status" ;;
    esac
}

# apt COMMAND...: asks no questions, and gives up a mirror that is away after a minute
apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=1 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 \
        -o DPkg::Lock::Timeout=120 -o APT::Install-Recommends=false "$@"
}

upgrades_on() {
    say "fetching the lists of packages from $DISTRIBUTION's mirror ..."
    need_work
    apt -o APT::Update::Error-Mode=any update >"$work/apt" 2>&1 || {
        reason=$(sed -n 's/^E: *//p' "$work/apt" | head -n 1)
        fail "$DISTRIBUTION's mirror cannot be reached, nothing was changed ($(plain "$reason")); see: hyrax-network status, and /etc/apt/sources.list"
    }
    say "fetching the package unattended-upgrades ..."
    apt install --download-only unattended-upgrades >"$work/apt" 2>&1 || {
        cat "$work/apt" >&2
        fail "the package unattended-upgrades cannot be fetched; nothing was changed"
    }
    say "installing it; this takes a minute or two ..."
    # A package must not be left half installed.
    trap '' INT
    apt install unattended-upgrades >"$work/apt" 2>&1 || {
        cat "$work/apt" >&2
        fail "the package unattended-upgrades cannot be installed; remove the cause shown above, then type: hyrax-setup upgrades on"
    }
    write_apt_conf || fail "$APT_CONF cannot be written; is the disk full? See: df -h"
    # shellcheck disable=SC2086  # one argument per timer
    systemctl enable --quiet --now $TIMERS || fail "the timers do not start; see: systemctl status $TIMERS"
    upgrades_status
}

# Only security upgrades: the distribution's other changes come when an administrator installs them.
write_apt_conf() {
    write_file "$APT_CONF" <<END
// Written by "hyrax-setup upgrades on"; "hyrax-setup upgrades off" deletes it.
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
#clear Unattended-Upgrade::Origins-Pattern;
Unattended-Upgrade::Origins-Pattern {
$(printf '%s\n' "$UPGRADE_ORIGINS" | sed 's/.*/    "&";/')
};
Unattended-Upgrade::Automatic-Reboot "false";
Unattended-Upgrade::Remove-Unused-Kernel-Packages "true";
END
}

upgrades_off() {
    # shellcheck disable=SC2086  # one argument per timer
    systemctl disable --quiet --now $TIMERS || fail "the timers do not stop; see: systemctl status $TIMERS"
    delete_file "$APT_CONF"
    upgrades_status
}

upgrades_status() {
    # shellcheck disable=SC2086  # one argument per timer
    if [ -f "$APT_CONF" ] && systemctl is-enabled --quiet $TIMERS; then
        say "security upgrades: on, every night; this VM does not restart by itself"
        next=$(systemctl show --value --property=NextElapseUSecRealtime apt-daily-upgrade.timer)
        [ -z "$next" ] || say "next:              $next"
        say "what was done:     see /var/log/unattended-upgrades"
    else
        say "security upgrades: off; switch them on with: hyrax-setup upgrades on"
        say "by hand:           sudo apt-get update && sudo apt-get upgrade"
    fi
    [ ! -e "$ROOT/run/reboot-required" ] || say "an upgrade needs a restart to take effect; type: sudo reboot"
}
