# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-setup
# hyrax-setup: the server's settings and diagnostics. Sourced by hyrax-setup.

menu_server() {
    while :; do
        set --
        while read -r key _ _ meaning; do
            set -- "$@" "$(lower "$key")" "$(server_setting "$key" | sed 's/$/: /')${meaning%%[,(]*}"
        done <<END
$(setting_list)
END
        choose Back "Server" "Settings of $(release SERVER_TITLE) $(release SERVER_VERSION)" "$@" || return 0
        change_setting "$answer"
    done
}

# change_setting KEY
change_setting() {
    key=$1
    meaning=$(setting_list | awk -v key="$key" 'tolower($1) == key' | cut -d ' ' -f 4-)
    ask "Server" "$key: $meaning
(leave this empty for the default)" "$(server_setting "$(upper "$key")")" || return 0
    perform hyrax-server set "$key" "${answer:-default}"
}

menu_diagnose() {
    while choose Back "What is wrong?" "Begin with status: it shows what is broken and what to type." \
        status "Are data served? If not, what is broken?" \
        test "Fetch one file of a data set through the server" \
        logs "The server's last messages" \
        usage "How often the data are read" \
        restart "Stop and start the server" \
        drain "Send no new readers here (load balancers)" \
        undrain "Let load balancers send readers again" \
        support "Make a file for the person who helps you"; do
        case $answer in
        status) perform hyrax-server status ;;
        test) ! pick_data_set "Which one do you want to test?" || perform hyrax-data test "$answer" ;;
        logs) perform hyrax-server logs ;;
        usage | restart | drain | undrain) perform hyrax-server "$answer" ;;
        support) perform hyrax-setup support ;;
        esac
    done
}
