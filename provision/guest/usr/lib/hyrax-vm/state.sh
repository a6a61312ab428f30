# shellcheck shell=sh disable=SC2034  # its variables are for the scripts that source it
# Files that outlive a power cut, the locks of the commands that change them, and a clock that nobody sets.
# Sourced by lib.sh.

# write_file PATH [COMMAND...] < content: writes all of it or nothing, whenever the power fails. Without
# the first sync, rename(2) may leave an empty file; without the second, the former file may come back.
# COMMAND gets the path of the new file as its last argument: it sets the owner and the mode.
write_file() {
    written=$1
    shift
    cat >"$written.new" && { [ $# -eq 0 ] || "$@" "$written.new"; } && sync "$written.new" &&
        mv -f "$written.new" "$written" && sync "${written%/*}" && return
    rm -f "$written.new"
    return 1
}

# private PATH < content: as write_file, but only root may read the file
private() { (umask 077 && write_file "$1"); }

# delete_file PATH...: deletes files of one folder, for good
delete_file() { [ ! -d "${1%/*}" ] || { rm -f "$@" && sync "${1%/*}"; }; }

# lock NAME: lets one process at a time read and change these settings; others wait until it has ended.
# What this process leaves behind must not keep the lock: start it with 9>&-.
lock() {
    [ -d "$ROOT/run/hyrax" ] || mkdir -p "$ROOT/run/hyrax"
    exec 9>"$ROOT/run/hyrax/$1.lock"
    flock -w 120 9 || fail "another command is changing the same settings; try again when it has finished"
}

# uptime: sets uptime, seconds since the boot, for deadlines: NTP may set the other clock back by hours.
# Not below HYRAX_ROOT: it is the clock of the machine on which this runs. It starts no program.
uptime() {
    read -r uptime _ </proc/uptime
    uptime=${uptime%.*}
}
