# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-setup
# hyrax-setup: shows boxes on the terminal, and runs commands between them. Sourced by hyrax-setup.
#
# choose, ask and confirm return 1 for Cancel and Esc; choose and ask set answer.

terminal=

enter_dialogs() {
    if ! [ -t 0 ] || ! [ -t 1 ]; then
        usage_error "the menu needs a terminal; for commands that do not, see: hyrax-setup --help"
    fi
    command -v whiptail >/dev/null || fail "the package 'whiptail' is missing; type: sudo apt-get install whiptail"
    tput cup 0 0 >/dev/null 2>&1 || {
        [ "${TERM:-dumb}" != dumb ] || usage_error "this terminal (TERM=${TERM:-}) cannot show a menu; see: hyrax-setup --help"
        # A terminal type that this VM does not know: present ones understand what xterm does.
        export TERM=xterm
    }
    measure_terminal
    if [ "$rows" -lt 14 ] || [ "$cols" -lt 50 ]; then
        usage_error "this terminal has $rows lines of $cols characters; the menu needs 14 lines of 50"
    fi
    terminal=$(stty -g)
}

# leave_dialogs: restores the terminal, whatever ended the menu
leave_dialogs() {
    [ -n "$terminal" ] || return 0
    stty "$terminal"
    tput sgr0
    tput cnorm
    terminal=
}

# measure_terminal: sets rows and cols. A serial line does not know its size.
measure_terminal() {
    size=$(stty size)
    case $size in
    0\ * | *\ 0 | '')
        stty rows 24 cols 80
        size='24 80'
        ;;
    esac
    rows=${size% *} cols=${size#* }
}

# box EXTRA TEXT: sets width and height of a box with TEXT and EXTRA more lines
box() {
    measure_terminal
    width=$((cols - 4))
    [ "$width" -le 76 ] || width=76
    height=$(($(printf '%s\n' "$2" | fold -s -w $((width - 4)) | wc -l) + $1))
    [ "$height" -le $((rows - 1)) ] || height=$((rows - 1))
}

# dialog OPTIONS...: runs whiptail, which writes the user's choice to its stderr and its boxes to its
# stdout. A vt220 draws lines and corners with a special character set, which the Linux console and
# newer terminals ignore in UTF-8.
dialog() {
    case $TERM in
    vt*) charset=C ;;
    *) charset=C.UTF-8 ;;
    esac
    answer=$(LC_ALL=$charset whiptail --backtitle "Hyrax VM on $(uname -n)" "$@" 3>&1 1>&2 2>&3)
}

# choose LEAVE TITLE TEXT TAG ITEM ...: LEAVE is the label of the other button
choose() {
    leave=$1 title=$2 text=$3
    shift 3
    box $(($# / 2 + 7)) "$text"
    list=$(($# / 2))
    [ "$list" -le $((height - 7)) ] || list=$((height - 7))
    dialog --title "$title" --cancel-button "$leave" --menu -- "$text" "$height" "$width" "$list" "$@"
}

# ask TITLE TEXT [PRESENT]
ask() {
    box 7 "$2"
    dialog --title "$1" --cancel-button Back --inputbox -- "$2" "$height" "$width" "${3:-}"
}

# ask_some TITLE TEXT [PRESENT]: asks until something is typed
ask_some() {
    while ask "$@"; do
        [ -z "$answer" ] || return 0
    done
    return 1
}

# confirm TITLE TEXT: asks yes or no; the default is no
confirm() {
    box 6 "$2"
    dialog --title "$1" --defaultno --yesno -- "$2" "$height" "$width"
}

# show_message TITLE TEXT: shows a box until the user presses Enter
show_message() {
    box 6 "$2"
    dialog --title "$1" --msgbox -- "$2" "$height" "$width" || :
}

# command_line COMMAND...: prints the command as a person would type it
command_line() {
    for each; do
        case $each in
        '' | *[!A-Za-z0-9_./:@%+=,-]*) printf " '%s'" "$(printf '%s' "$each" | sed "s/'/'\\\\''/g")" ;;
        *) printf ' %s' "$each" ;;
        esac
    done | cut -c 2-
}

# perform COMMAND...: shows the command, runs it on the terminal, waits for Enter, and returns the
# command's status. Ctrl-C ends the command and not the menu.
perform() {
    tput clear
    say "The same by command:"
    say "    $(command_line "$@")"
    echo
    trap : INT
    PATH=$ROOT/usr/bin:$PATH "$@"
    result=$?
    trap 'exit 130' INT
    stty "$terminal"
    echo
    case $result in
    0) printf 'Done. ' ;;
    130) printf 'Interrupted. ' ;;
    *) printf 'That did not work. ' ;;
    esac
    printf 'Press Enter to go back to the menu. '
    read -r _ || :
    return "$result"
}
