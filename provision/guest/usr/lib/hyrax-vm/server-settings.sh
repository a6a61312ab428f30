# shellcheck shell=sh
# The settings of `hyrax-server set`: /etc/hyrax/server.conf, lines KEY=VALUE, which people edit too. A wrong
# line counts as if it were not there. Sourced by lib.sh.

SETTINGS=$ROOT/etc/hyrax/server.conf

# setting_list: the settings, lines of KEY PATTERN UNITS MEANING: the data server's and the front door's
setting_list() { cat "$ROOT/usr/lib/hyrax/settings" "$LIB"/*.settings 2>/dev/null; }

# setting_of KEY: sets pattern and meaning; status 1 if there is no such setting. It starts no program.
setting_of() {
    for each_list in "$ROOT/usr/lib/hyrax/settings" "$LIB"/*.settings; do
        [ -e "$each_list" ] || continue
        while read -r each_key pattern _ meaning; do
            [ "$each_key" != "$1" ] || return 0
        done <"$each_list"
    done
    return 1
}

# fits VALUE: does it match $pattern?
fits() {
    case $1 in
    *"
"*) return 1 ;;
    esac
    printf '%s\n' "$1" | grep -q -x -E -- "$pattern"
}

# server_setting KEY: prints the value that was set, or nothing
server_setting() {
    [ -e "$SETTINGS" ] || return 0
    setting=$(value_of "$1" "$SETTINGS")
    [ -n "$setting" ] || return 0
    ! setting_of "$1" || fits "$setting" || return 0
    say "$setting"
}

# setting_problems: what is wrong in the file, one line for each wrong line
setting_problems() {
    [ -e "$SETTINGS" ] || return 0
    number=0
    while IFS= read -r each_line || [ -n "$each_line" ]; do
        number=$((number + 1))
        case $each_line in
        '#'*) continue ;;
        *[![:blank:]]*) ;;
        *) continue ;;
        esac
        key=${each_line%%=*} value=${each_line#*=}
        if [ "$key" = "$each_line" ] || ! setting_of "$key"; then
            expected="KEY=VALUE with one of the keys $(setting_list | cut -d ' ' -f 1 | paste -s -d ' ')"
        elif [ -z "$value" ] || fits "$value"; then
            continue
        else
            expected=$meaning
        fi
        say "/etc/hyrax/server.conf, line $number: '$(plain "$each_line")' is not used; expected: $expected"
    done <"$SETTINGS"
}
