# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup timezone and ntp. Sourced by hyrax-setup.

ZONES=/usr/share/zoneinfo
NTP_CONF=$ROOT/etc/systemd/timesyncd.conf.d/50-hyrax.conf

# clock_options ARGUMENT...: sets value and check
clock_options() {
    value='' check=''
    for each; do
        case $each in
        --check) check=yes ;;
        -*) usage_error "'$(plain "$each")' is not an option of $command; see: hyrax-setup --help" ;;
        *)
            [ -z "$value" ] || usage_error "$command takes one value; '$(plain "$each")' is one too many"
            value=$each
            ;;
        esac
    done
}

timezone() {
    clock_options "$@"
    now=$(readlink "$ROOT/etc/localtime")
    [ -n "$value" ] || { say "${now#*zoneinfo/}"; return; }
    case $value in
    /* | *..* | *[!A-Za-z0-9_+/-]*) bad_zone ;;
    esac
    # "TZif": RFC 8536
    [ "$(head -c 4 "$ZONES/$value" 2>/dev/null)" = TZif ] || bad_zone
    [ -z "$check" ] || return 0
    put_zone || fail "/etc/localtime cannot be written; is the disk full? See: df -h"
    say "the timezone is now $value; programs that run use it when they start again"
}

put_zone() {
    ln -sfn "$ZONES/$value" "$ROOT/etc/localtime.new" &&
        mv -fT "$ROOT/etc/localtime.new" "$ROOT/etc/localtime" && sync "$ROOT/etc"
}

bad_zone() { usage_error "'$(plain "$value")' is not a timezone; for example: Europe/Vienna; to list those of a continent: ls $ZONES/America"; }

ntp() {
    clock_options "$@"
    [ -n "$value" ] || { sed -n 's/^NTP=//p' "$NTP_CONF" 2>/dev/null | grep . || say default; return; }
    case ",$value," in
    *[!A-Za-z0-9:.,-]* | *,,* | *,-*)
        usage_error "'$(plain "$value")' cannot be time servers: expected names or addresses with commas between them, for example ntp.example.org,192.168.1.1" ;;
    esac
    [ -z "$check" ] || return 0
    lock clock
    case $value in
    default) delete_file "$NTP_CONF" ;;
    *)
        mkdir -p "${NTP_CONF%/*}" &&
            printf '# Written by: hyrax-setup ntp\n[Time]\nNTP=%s\n' "$(printf '%s' "$value" | tr , ' ')" | write_file "$NTP_CONF"
        ;;
    esac || fail "$NTP_CONF cannot be written; is the disk full? See: df -h"
    # try-: at boot it starts later, and reads the file then.
    systemctl try-restart systemd-timesyncd.service || fail "systemd-timesyncd does not start; see: journalctl -u systemd-timesyncd"
    say "time servers: $value; to see whether they answer: timedatectl timesync-status"
}
