# shellcheck shell=sh disable=SC2030,SC2031,SC2034,SC2154  # variables are shared with hyrax-server
# hyrax-server status: checks the chain from the data to the reader. Sourced by hyrax-server.

# Not a tab: the shell would read two tabs as one, and so lose an empty field.
SEP=$(printf '\037')
SAMPLE=/opendap/sample/sst.nc.dds

# The chain's links and the data sets, one a line: NAME, ok or broken, DETAIL and NEXT (the command to
# type), with SEP between them.
links='' sets=''

status() {
    [ "${1:-}" != --json ] || json=yes
    [ $# -eq 0 ] || [ "$#:$json" = 1:yes ] || usage_error "status takes nothing after it but --json"
    look_at_network
    look_at_processor
    look_at_front_door
    look_at_settings
    look_at_https
    look_at_units
    look_at_answers
    look_at_data
    broken=$(printf '%s%s' "$links" "$sets" | grep -c "^[^$SEP]*${SEP}broken")
    if [ -n "$json" ]; then status_json; else status_text; fi
    [ "$broken" -eq 0 ]
}

# found NAME STATE DETAIL [NEXT]: adds one link of the chain
found() {
    links="$links$1$SEP$2$SEP$3$SEP${4:-}
"
}

look_at_network() {
    here=$(addresses | sed 's/^\([^ ]*\) \(.*\)/\2 (\1)/' | paste -s -d ' ')
    if [ -n "$here" ]; then
        found network ok "$here"
    else
        found network broken "no address: $(why_no_address eth0)" "hyrax-network status"
    fi
}

# look_at_processor: programs of Enterprise Linux 9 (Hyrax's image) need x86-64-v2, or end at once
look_at_processor() {
    grep -q 'platform:el9' "$ROOT$IMAGE/etc/os-release" 2>/dev/null || return 0
    grep -q -w sse4_2 "$ROOT/proc/cpuinfo" ||
        found processor broken "the server needs x86-64-v2 (SSE 4.2): CPU type 'host'" "sudo poweroff"
}

# look_at_front_door: does nginx answer? /health needs no data server.
look_at_front_door() {
    unit=hyrax-front-door.service
    if [ "$(ask_server /health 5)" != 000 ]; then
        problem=$(cat "$ROOT/run/hyrax/front-door.problem" 2>/dev/null)
        if [ -z "$problem" ]; then
            found "front door" ok "port $PORT, memory $(memory)"
        else
            found "front door" broken "its settings are not used: $problem" "hyrax-server set; ls /etc/hyrax/nginx.d"
        fi
    else
        found "front door" broken "port $PORT does not answer; $unit is $(property ActiveState)" "hyrax-server logs; hyrax-server restart"
    fi
}

# look_at_settings: only when a line is wrong that somebody has written
look_at_settings() {
    wrong=$(setting_problems)
    [ -n "$wrong" ] || return 0
    more=$(printf '%s\n' "$wrong" | tail -n +2 | grep -c .)
    wrong=$(printf '%s\n' "$wrong" | head -n 1)
    [ "$more" -eq 0 ] || wrong="$wrong ($more more lines are wrong)"
    found settings broken "$wrong" "sudo nano /etc/hyrax/server.conf; hyrax-server restart"
}

# look_at_https: only when HTTPS is on
look_at_https() {
    [ -d "$HTTPS" ] || return 0
    problem=$(certificate_state)
    if ! https_is_on; then
        found https broken "$problem" "hyrax-server https renew"
    elif ! https_answers; then
        found https broken "port $HTTPS_PORT does not answer" "hyrax-server logs; hyrax-server restart"
    elif [ "$(certificate_days "$HTTPS_PEM")" -lt 0 ]; then
        found https broken "$problem" "hyrax-server https --help"
    else
        found https ok "$(https_url), ${problem:-certificate until $(certificate_date "$HTTPS_PEM")}"
    fi
}

look_at_units() {
    for unit in $(units); do
        state=$(property ActiveState)
        if [ "$state" = active ]; then
            found "$unit" ok "memory $(memory), restarted by itself: $(property NRestarts)"
        else
            found "$unit" broken "$state ($(property Result))" "hyrax-server logs; hyrax-server restart"
        fi
    done
}

# memory: the memory that $unit uses
memory() {
    bytes=$(property MemoryCurrent)
    case $bytes in
    '' | *[!0-9]*) say - ;;
    *) say "$((bytes / 1048576)) MB" ;;
    esac
}

# look_at_answers: sets answers when the server serves the samples, which need no file server
look_at_answers() {
    answers=
    if [ "$("$LIB/tcp-probe" 127.0.0.1 "$SERVER_PORT" 3)" != open ]; then
        found "data server" broken "no program listens on port $SERVER_PORT" "hyrax-server restart"
        return
    fi
    found "data server" ok "port $SERVER_PORT, only on this machine"
    code=$(ask_server "$SAMPLE")
    if [ "$code" = 200 ]; then
        answers=yes
        found samples ok "http://127.0.0.1:$PORT$SAMPLE"
    else
        found samples broken "http://127.0.0.1:$PORT$SAMPLE: $(in_words "$code")" "hyrax-server logs"
    fi
}

# ask_server PATH [SECONDS]: the HTTP status, 000 for no answer
ask_server() { curl -s -m "${2:-20}" -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT$1"; }
# ask_listing NAME: as ask_server; the front door would ask for the password of a restricted one
ask_listing() {
    if is_restricted "$1"; then
        PORT=$SERVER_PORT ask_server "/opendap/data/$1/"
    else
        ask_server "/opendap/data/$1/"
    fi
}
in_words() { if [ "$1" = 000 ]; then say "no answer within 20 s"; else say "HTTP $1"; fi; }

# look_at_data: finds which link of each data set is broken: file server, mount, permission or server
look_at_data() {
    rows=$("$ROOT/usr/bin/hyrax-data" status --json | "$LIB/json-rows" name state problem source) ||
        found "data sets" broken "their state is not known" "hyrax-data status"
    sets=$(printf '%s\n' "$rows" | sed '/^$/d' |
        while IFS=$SEP read -r name state problem source; do
            next="hyrax-data status $name" code=200
            [ -z "$answers" ] || [ -n "$problem" ] || code=$(ask_listing "$name")
            if [ -n "$problem" ]; then
                printf '%s\037broken\037%s: %s\037%s\n' "$name" "$(link_of "$name" "$state")" "$problem" "$next"
            elif [ "$code" != 200 ]; then
                printf '%s\037broken\037server: its listing: %s\037%s\n' "$name" "$(in_words "$code")" "hyrax-data test $name"
            else
                printf '%s\037ok\037%s, %s\037\n' "$name" "$state" "$source"
            fi
        done)
}

# link_of NAME STATE
link_of() {
    case $2 in
    unreadable) say permission ;;
    hung) say "file server" ;;
    *)
        quick_state "$1"
        if [ "$state" = away ]; then say "file server"; else say mount; fi
        ;;
    esac
}

status_text() {
    if [ -n "$answers" ]; then state='answers'; else state='does not answer'; fi
    say "$(release SERVER_TITLE) $(release SERVER_VERSION) $state at $(base_url)"
    show "$links"
    if [ -n "$sets" ]; then
        say "  data sets:"
        show "$sets"
    else
        say "  data sets: none; $(add_hint)"
    fi
    ! since=$(drained) || say "  drained since $since: load balancers send no readers here; type: hyrax-server undrain"
    say "  security upgrades: last installed $(upgraded)"
    count=$(changed | wc -l)
    say "  files that differ from the shipped ones: $count"
    changed | sed 's|^|    /opt/hyrax|' | head -n 10
    case $broken in
    0) say "Data are served." ;;
    *) say "Not all is well: $broken broken, marked with ! above. Type what is shown there." ;;
    esac
}

# show ROWS
show() {
    printf '%s\n' "$1" | while IFS=$SEP read -r name state detail next; do
        case $state in
        ok) printf '    %-22s %s\n' "$name" "$detail" ;;
        broken)
            printf '  ! %-22s %s\n' "$name" "$detail"
            printf '    %-22s type: %s\n' '' "$next"
            ;;
        esac
    done
}

status_json() {
    json_object title "$(release SERVER_TITLE)" version "$(release SERVER_VERSION)" \
        url "$(base_url)" answers:flag "$answers" drained:text "$(drained)" broken:number "$broken" \
        links:json "$(rows_json link "$links")" data_sets:json "$(rows_json name "$sets")" \
        changed_files:number "$(changed | wc -l)"
}

# upgraded: when security upgrades were last installed; never, or why not
upgraded() {
    found=$ROOT/var/lib/hyrax/upgrades
    [ -e "$found" ] || { say never; return; }
    when=$(value_of INSTALLED "$found") away=$(value_of AWAY "$found") looked=$(value_of CHECKED "$found")
    say "${when:-never}${looked:+, last looked for $looked}${away:+; their mirror does not answer}"
}

# rows_json KEY ROWS
rows_json() {
    printf '%s\n' "$2" | while IFS=$SEP read -r name state detail next; do
        [ -z "$name" ] || json_object "$1" "$name" state "$state" detail "$detail" next:text "$next"
    done | json_array
}
