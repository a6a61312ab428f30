# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-setup
# hyrax-setup: data sets. Sourced by hyrax-setup.

# What the user typed last: the next try offers it again.
computer='' place='' login='' name=''

menu_data() {
    access=$(release ACCESS)
    while choose Back "Data sets" "$(data_summary)" \
        add "$(add_item)" \
        status "State of all data sets, and what is wrong" \
        test "Fetch one file through the server" \
        restrict "Only for readers with a password, over HTTPS" \
        unrestrict "For everybody again" \
        remove "Stop serving one; the data stay where they are" \
        copy "How to copy data to this VM's own disk"; do
        case $answer in
        add) "add_$access" ;;
        status) perform hyrax-data status ;;
        test) ! pick_data_set "Which one do you want to test?" || perform hyrax-data test "$answer" ;;
        restrict) restrict_data_set ;;
        unrestrict) ! pick_data_set "Which one do you want to open for everybody?" || perform hyrax-data unrestrict "$answer" ;;
        remove) remove_data_set ;;
        copy) add_local ;;
        esac
    done
}

data_summary() {
    count=$(data_sets | wc -l)
    if [ "$count" -eq 0 ]; then say "There are none yet."; else say "Served now ($count): $(data_sets | paste -s -d ' ')"; fi
}

add_item() {
    case $access in
    nfs) say "Serve an NFS export" ;;
    smb) say "Serve a Windows share (SMB)" ;;
    *) say "Serve data on this VM's own disk" ;;
    esac
}

# pick_data_set TEXT: sets answer
pick_data_set() {
    text=$1
    set --
    for each in $(data_sets); do
        set -- "$@" "$each" "$(data_url "$each")"
    done
    [ $# -gt 0 ] || {
        show_message "Data sets" "There are none yet."
        return 1
    }
    choose Back "Data sets" "$text" "$@"
}

# url_path TEXT: TEXT as the path of a URL
url_path() { printf '%s' "$1" | perl -pe 's{([^A-Za-z0-9/._~-])}{sprintf "%%%02X", ord $1}ge'; }

# ask_host TEXT: sets computer, in the form that a URL needs
ask_host() {
    ask_some "Add data" "$1" "$computer" || return 1
    computer=$answer
    case $computer in
    \[*) ;;
    *:*:*) computer="[$computer]" ;;
    esac
}

# ask_name: sets name; offers the last part of place
ask_name() {
    name=${place%/}
    name=${name##*/}
    ask "Add data" "The name of the data set, which becomes part of its URL: letters, digits, dots, _ and -" "$name" ||
        return 1
    name=$answer
}

add_nfs() {
    ask_host "The computer that has the data (its name or address):" || return 0
    ask_some "Add data" "The folder that it exports, as in its /etc/exports, for example /export/sst:" "$place" || return 0
    place=/${answer#/}
    ask_name || return 0
    add_data "nfs://$computer$(url_path "$place")"
}

add_smb() {
    ask_host "The Windows computer that has the data (its name or address):" || return 0
    ask_some "Add data" "The share, or a folder in it, for example sst or sst/2020:" "$place" || return 0
    place=$(printf '%s' "$answer" | tr '\134' /)
    place=${place#/}
    ask "Add data" "A user who may read it, for example me or DOMAIN\\\\me; leave this empty for a guest.
The next step asks for the password." "$login" || return 0
    login=$answer
    ask_name || return 0
    add_data "smb://$computer/$(url_path "$place")" ${login:+--user "$login"}
}

add_local() { perform hyrax-data --help; }

# add_data URL [OPTIONS...]: adds it; if it does not work now, asks whether to keep it
add_data() {
    set -- hyrax-data add "$@" ${name:+--as "$name"}
    perform "$@" && computer='' place='' login='' && return
    [ "$result" -eq 1 ] &&
        confirm "Add data" "It does not work now. Keep it, and serve it as soon as the other computer lets this VM in?" &&
        perform "$@" --force
}

remove_data_set() {
    pick_data_set "Which one do you want to stop serving?" || return 0
    name=$answer
    ! confirm "Remove" "Stop serving $name?
The data stay where they are, at $(data_url "$name")" || perform hyrax-data remove "$name"
}

restrict_data_set() {
    pick_data_set "Which one do you want to restrict?" || return 0
    name=$answer
    ask_some "Restrict" "The user who may read it: letters, digits, dots, _, - and @. The next step asks for the password." || return 0
    person=$answer
    set -- hyrax-data restrict "$name" --user "$person"
    ! confirm "Restrict" "Leave it out of listings, too?" || set -- "$@" --hidden
    perform "$@"
}
