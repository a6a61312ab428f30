# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-setup
# hyrax-setup: network, password, SSH, upgrades. Sourced by hyrax-setup.

menu_network() {
    while choose Back "Network" "Addresses: $({ addresses | grep . || say - none; } | sed 's/^[^ ]* //' | paste -s -d ' ')
If you are connected over SSH, a new address ends your connection; this VM's console always works." \
        status "Show how the network is set, and whether it works" \
        dhcp "Take the address from the network (DHCP)" \
        static "Set a fixed address" \
        dns "Set the name servers (DNS)" \
        hostname "Set this VM's name"; do
        case $answer in
        status) perform hyrax-network status ;;
        dhcp) perform hyrax-network dhcp ;;
        static) static_address ;;
        dns)
            ! ask_some "Network" "Addresses of the name servers, with commas between them, for example 192.168.1.1,9.9.9.9:" ||
                perform hyrax-network dns "$answer"
            ;;
        hostname)
            ! ask_some "Network" "The name of this VM: letters, digits and -" "$(uname -n)" ||
                perform hyrax-network hostname "$answer"
            ;;
        esac
    done
}

static_address() {
    ask_some "Network" "The address and, after the slash, its netmask (24 or 255.255.255.0), for example 192.168.1.20/24:" ||
        return 0
    address=$answer
    ask "Network" "The gateway (router), for example 192.168.1.1; leave this empty if there is none:" || return 0
    gateway=$answer
    ask "Network" "The name servers (DNS), with commas between them; leave this empty if there are none:" "$gateway" || return 0
    perform hyrax-network static "$address" ${gateway:+--gateway "$gateway"} ${answer:+--dns "$answer"}
}

menu_password() {
    ! confirm "Password" "$(password_rule)

Set the password of $USER_NAME now?" || {
        if [ "$(id -un)" = "$USER_NAME" ]; then perform passwd; else perform sudo passwd "$USER_NAME"; fi
    }
}

# password_rule: says whether SSH accepts a password, and why
password_rule() {
    if [ -e "$ROOT/run/hyrax/sshd/password.conf" ]; then
        say "The password was changed: SSH accepts it, and keys."
    else
        say "The password is the documented one: SSH accepts keys only, until you change it."
    fi
}

menu_ssh() {
    while ssh_state; choose Back "SSH" "SSH is $now. $(password_rule)" \
        "$other" "Switch SSH $other" \
        list "List the keys that may log in" \
        add "Add a key" \
        remove "Remove a key"; do
        case $answer in
        on) perform sudo systemctl enable --now "$SSH_UNIT" ;;
        off)
            ! confirm "SSH" "After this, you can log in only on this VM's console. Switch SSH off?" ||
                perform sudo systemctl disable --now "$SSH_UNIT"
            ;;
        list) perform hyrax-setup ssh-key list ;;
        add)
            ! ask_some "SSH" "The public key, one line that begins with ssh-ed25519 or the like; on the other computer it is in the file .ssh/id_ed25519.pub:" ||
                perform hyrax-setup ssh-key add "$answer"
            ;;
        remove) remove_key ;;
        esac
    done
}

ssh_state() {
    if systemctl is-active --quiet "$SSH_UNIT"; then now=on other=off; else now=off other=on; fi
}

remove_key() {
    set --
    while read -r number key; do
        [ -z "$number" ] || set -- "$@" "$number" "$key"
    done <<END
$(key_rows)
END
    [ $# -gt 0 ] || {
        show_message "SSH" "There are no keys."
        return 0
    }
    ! choose Back "SSH" "Which key do you want to remove?" "$@" || perform hyrax-setup ssh-key remove "$answer"
}

menu_upgrades() {
    while choose Back "Security upgrades" "This VM can install $DISTRIBUTION's security upgrades every night. Some take effect only after a restart." \
        status "Show whether it does, and when it last did" \
        now "Install them now; needs the Internet" \
        on "Install them every night" \
        restart "The same, and restart at a time of the night when one needs it" \
        off "Do not install them"; do
        case $answer in
        restart)
            ! ask_some "Security upgrades" "The time of the restart, for example 03:30:" || perform hyrax-setup upgrades on --restart "$answer"
            ;;
        on) perform hyrax-setup upgrades on --restart no ;;
        *) perform hyrax-setup upgrades "$answer" ;;
        esac
    done
}
