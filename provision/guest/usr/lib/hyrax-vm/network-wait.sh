# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-network
# hyrax-network: waiting for systemd-networkd. Sourced by hyrax-network.

# networkd_runs: does systemd-networkd run? A restart in progress counts as running. Early in the
# boot it does not run yet: it will read its files itself, and networkctl would wait for it.
networkd_runs() { [ "$(systemctl is-active systemd-networkd.service)" != inactive ]; }

# A conflict is found in at most 9 s (RFC 5227), DHCP takes a few.
PATIENCE=20
# A systemd-networkd that has crashed begins again. This is for all of its attempts.
PATIENCE_IN_ALL=90

# wait_for PATTERN: waits until an address of $link matches PATTERN (a basic regular expression); status 1
# when there is none PATIENCE seconds after this call or after the last start of systemd-networkd
wait_for() {
    networkd_runs || return 0
    uptime
    end=$((uptime + PATIENCE)) last=$((uptime + PATIENCE_IN_ALL))
    until addresses | grep -q "^$link $1\$"; do
        uptime
        if [ "$uptime" -ge "$end" ]; then
            end=$(($(networkd_started) + PATIENCE))
            [ "$uptime" -lt "$end" ] && [ "$uptime" -lt "$last" ] || return 1
        fi
        sleep 0.5
    done
}

# networkd_started: prints the uptime at which systemd-networkd was ready; now, while it is not. systemd gives
# microseconds, and 0 for never.
networkd_started() {
    if [ "$(systemctl is-active systemd-networkd.service)" = active ]; then
        began=$(systemctl show --value --property=ActiveEnterTimestampMonotonic systemd-networkd.service)
        say "$((${began:-0} / 1000000))"
    else
        say "$uptime"
    fi
}
