# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: what it keeps of a data set on the system. Sourced after lib.sh.
#
# The .conf is written last and removed last: it is what makes a data set exist.

# unit NAME SUFFIX: the unit's name, which systemd ties to the mount point's path
unit() { systemd-escape --path --suffix="$2" "$DATA/$1"; }

# mount_options PORT
# vers=4, not 4.2: mount.nfs then tries 4.2 first and goes down to what the server has.
# softerr, timeo, retrans: a dead file server gives the reader an error instead of a hang.
# actimeo=5: a new or replaced file is seen after five seconds, not after up to a minute.
# retry=0: mount's own two minutes of retries would only keep the reader waiting.
mount_options() {
    printf 'ro,vers=4,port=%s,softerr,timeo=50,retrans=2,retry=0,actimeo=5,' "$1"
    printf 'nosuid,nodev,noexec,_netdev,nofail'
}

# write_file PATH < content: all of it or nothing
write_file() {
    cat >"$1.new" && mv -f "$1.new" "$1"
}

# escaped TEXT: as it stands in a unit file, where % starts a specifier
escaped() { printf '%s' "$1" | sed 's/%/%%/g'; }

# keep NAME URL SOURCE OPTIONS
# StartLimitIntervalSec=0: otherwise five refused mounts in ten seconds switch the automount off
# for good, and it does not come back with its server.
# LazyUnmount, ForceUnmount: taking the mount away must not wait for a dead server.
keep() {
    mkdir -p "$ROOT$DATA/$1" "$CONF" "$UNITS" &&
        write_file "$UNITS/$(unit "$1" mount)" <<END &&
# Written by hyrax-data; \`hyrax-data remove $1\` deletes it.
[Unit]
Description=Data set $1
StartLimitIntervalSec=0

[Mount]
What=$(escaped "$3")
Where=$DATA/$1
Type=nfs4
Options=$4
TimeoutSec=15
LazyUnmount=yes
ForceUnmount=yes
END
        write_file "$UNITS/$(unit "$1" automount)" <<END &&
# Written by hyrax-data; \`hyrax-data remove $1\` deletes it.
[Unit]
Description=Data set $1, mounted when it is read
StartLimitIntervalSec=0

[Automount]
Where=$DATA/$1
TimeoutIdleSec=300

[Install]
WantedBy=multi-user.target
END
        systemctl daemon-reload &&
        systemctl enable --quiet --now "$(unit "$1" automount)" &&
        write_file "$CONF/$1.conf" <<END
NAME=$1
URL=$2
END
}

# discard NAME: everything that keep makes, also when only half of it is there
discard() {
    automount=$(unit "$1" automount)
    mount=$(unit "$1" mount)
    systemctl disable --quiet "$automount" 2>/dev/null
    # Stopping waits for umount; on a hung file server that may not end.
    with_deadline 20 systemctl stop "$automount" "$mount" 2>/dev/null
    tries=5
    while in_mount_table "$1" && [ "$tries" -gt 0 ]; do
        with_deadline 5 umount --lazy --force --no-canonicalize "$DATA/$1" 2>/dev/null
        tries=$((tries - 1))
    done
    rm -f "$UNITS/$automount" "$UNITS/$mount" "$UNITS/$automount.new" "$UNITS/$mount.new"
    rm -f "$UNITS/multi-user.target.wants/$automount"
    systemctl daemon-reload
    systemctl reset-failed "$automount" "$mount" 2>/dev/null
    if in_mount_table "$1"; then
        warn "$DATA/$1 is still in use and stays mounted until the next reboot"
    else
        rmdir "$ROOT$DATA/$1" 2>/dev/null
    fi
    rm -f "$CONF/$1.conf" "$CONF/$1.conf.new"
}
