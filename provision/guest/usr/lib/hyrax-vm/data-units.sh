# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# The files and units that hyrax-data keeps for a data set. Sourced after lib.sh.
#
# The .conf is written last: a data set exists when its .conf does.

# unit NAME SUFFIX: the unit's name, which systemd ties to the mount point's path. Most names have
# nothing that systemd escapes.
unit() {
    case $1 in
    *-*) systemd-escape --path --suffix="$2" "$DATA/$1" ;;
    *) say "srv-hyrax-data-$1.$2" ;;
    esac
}

# credentials NAME: the path of the file with which the SMB client logs in
credentials() { printf '%s/%s.credentials' "$CONF" "$1"; }

# escaped TEXT: TEXT for a unit file, where % starts a specifier
escaped() { printf '%s' "$1" | sed 's/%/%%/g'; }

# unit_value NAME KEY: the value in the file of its mount unit. systemd itself would report the
# options of the present mount.
unit_value() { sed -n -e 's/%%/%/g' -e "s/^$2=//p" "$UNITS/$(unit "$1" mount)"; }

# unit_options NAME: its options for mount, without nofail, with which mount.cifs hides a failure
unit_options() { unit_value "$1" Options | sed 's/,_netdev,nofail$//'; }

# keep NAME: writes and starts its units
# Reads the variables kind, host, port, path, url, vers and extra; for SMB also login and the file
# $work/credentials. With later, which is for the start of the VM, it waits for nothing.
# StartLimitIntervalSec=0: otherwise five refused mounts in ten seconds switch the automount off
# for good, and it does not come back with its server.
# TimeoutSec=30: the first mount loads kernel modules. The watchdog handles mounts that take longer.
# strictexpire: otherwise each look of the watchdog would count as a use, and the data set would stay
# mounted for ever. With it, only an open file counts.
# LazyUnmount, ForceUnmount: unmounting must not wait for a dead server.
keep() {
    mkdir -p "$ROOT$DATA/$1" "$CONF" "$UNITS" &&
        { [ ! -f "$work/credentials" ] || private "$(credentials "$1")" <"$work/credentials"; } &&
        write_file "$UNITS/$(unit "$1" mount)" <<END &&
# Written by hyrax-data; \`hyrax-data remove $1\` deletes it.
[Unit]
Description=Data set $1
StartLimitIntervalSec=0

[Mount]
What=$(escaped "$("${kind}_source")")
Where=$DATA/$1
Type=$(of_kind type)
Options=$("${kind}_options" "$(credentials "$1")"),_netdev,nofail
TimeoutSec=30
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
ExtraOptions=strictexpire

[Install]
WantedBy=multi-user.target
END
        switch_on "$1" &&
        write_file "$CONF/$1.conf" <<END
NAME=$1
URL=$url
LOGIN=$login
VERS=$vers
OPTIONS=$extra
END
}

# switch_on NAME: starts its automount, now and at each boot
switch_on() {
    systemctl enable --quiet --no-reload "$(unit "$1" automount)" &&
        systemctl daemon-reload &&
        systemctl start ${later:+--no-block} "$(unit "$1" automount)"
}

# unmount NAME: unmounts its data, but never its automount: systemd finds an automount by its path, and cannot
# wake those who wait for one that is unmounted.
# --lazy hides the mount, --force fails the waiting requests; neither asks the file server.
unmount() {
    ! is_mounted "$1" || with_deadline 5 umount --lazy --force --no-canonicalize "$DATA/$1"
}

# cut_off NAME: unmounts it and stops its units, even when its file server hangs. The order matters:
# 1. The data. Otherwise process 1 unmounts them itself when it stops the automount, and may wait for the
#    file server.
# 2. The automount, alone, and without regard to the jobs of the mount. Were both stopped together, systemd
#    would stop the mount first. A reader that comes after step 1 mounts it again, and all readers would wait
#    for the end of that mount: up to twice TimeoutSec=. This way all who wait get an error at once
#    (EHOSTDOWN), and later readers find an empty folder.
# 3. The mount, if such a reader has begun one. Nobody waits for it any more.
cut_off() {
    unmount "$1"
    with_deadline 10 systemctl stop --job-mode=ignore-dependencies "$(unit "$1" automount)"
    with_deadline 5 systemctl stop "$(unit "$1" mount)"
    unmount "$1"
}

# discard NAME: removes everything that keep makes, also when only half of it exists
discard() {
    automount=$(unit "$1" automount)
    mount=$(unit "$1" mount)
    systemctl disable --quiet --no-reload "$automount" 2>/dev/null
    cut_off "$1" 2>/dev/null
    # Anything is left only when systemd does not answer.
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
    rm -f "$(credentials "$1")" "$(credentials "$1").new" "$CONF/$1.conf" "$CONF/$1.conf.new"
}
