# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup support: makes one file for the person who helps. Sourced by hyrax-setup.
#
# Everything in the file passes through `redact`. Every command has a deadline: a file server that
# hangs is the usual reason to make this file.

support() {
    [ $# -le 1 ] || usage_error "support takes the name of one file"
    stem=hyrax-support-$(uname -n)-$(date +%Y%m%d-%H%M%S)
    file=${1:-$stem.tar.gz}
    [ ! -d "$file" ] || file=${file%/}/$stem.tar.gz
    check_folder
    need_work
    secrets >"$work/secrets"
    mkdir "$work/$stem"
    collect_all
    for_user tar -C "$work" -cz "$stem"
    say "$file ($(stat -c %s "$file") bytes)"
    say "Passwords and their hashes are left out. Look into the file before you send it: tar -xzf FILE"
    say "To fetch it from another computer: scp $USER_NAME@$(addresses | sed -n '1s/^[^ ]* //p'):$file ."
}

# collect NAME SECONDS COMMAND...: saves the command's output, without secrets, as NAME
collect() {
    name=$1 seconds=$2
    shift 2
    with_deadline "$seconds" "$@" >"$work/raw" 2>&1
    status=$?
    {
        case $status in
        0) ;;
        124) say "(no answer within $seconds s: $*)" ;;
        *) say "(exit status $status: $*)" ;;
        esac
        tail -c 4000000 "$work/raw"
    } | "$LIB/redact" "$work/secrets" >"$work/$stem/$name"
    [ ! -t 2 ] || printf '.' >&2
}

collect_all() {
    collect release 5 cat "$ROOT/etc/hyrax-vm-release" "$ROOT/etc/os-release" "$ROOT/proc/version"
    collect server-status 60 "$ROOT/usr/bin/hyrax-server" status
    collect server-status.json 60 "$ROOT/usr/bin/hyrax-server" status --json
    collect data-status 90 "$ROOT/usr/bin/hyrax-data" status
    collect data-status.json 90 "$ROOT/usr/bin/hyrax-data" status --json
    collect banner 5 cat "$ROOT/run/hyrax/issue"
    collect settings 5 "$LIB/support-facts" settings
    # More than the sum of its eight commands' deadlines.
    collect network 90 "$LIB/support-facts" network
    collect mounts 5 cat "$ROOT/proc/self/mounts"
    collect units 20 systemctl list-units --all --no-pager --plain --full \
        --type=service,socket,mount,automount,timer,path,target
    collect failed 20 systemctl status --failed --no-pager --full
    collect timers 20 systemctl list-timers --all --no-pager
    # --local: do not ask a mount that hangs
    collect disk 10 df --local --human-readable
    collect memory 5 cat "$ROOT/proc/meminfo" "$ROOT/proc/loadavg" "$ROOT/proc/cpuinfo"
    collect packages 20 dpkg-query --show
    collect journal 60 journalctl --no-pager --output=short-iso --lines=5000
    collect kernel 30 journalctl --no-pager --output=short-monotonic --dmesg --lines=2000
    [ ! -t 2 ] || echo >&2
}

# secrets: prints what must not be in the file, one a line
secrets() {
    cat "$CONF"/*.credentials 2>/dev/null | sed -n 's/^password=//p'
    cut -d : -f 2 "$ROOT/etc/shadow" 2>/dev/null
    cat "$ROOT/etc/hyrax"/*.toml 2>/dev/null | "$LIB/redact" --values
}
