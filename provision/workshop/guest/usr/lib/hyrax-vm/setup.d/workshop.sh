# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-setup
# hyrax-setup workshop: the notebooks, on and off. Sourced by hyrax-setup.
#
# Who may use them is the setting WORKSHOP of hyrax-server; the front door lets in nobody else.

workshop() {
    verb=${1:-status}
    [ $# -eq 0 ] || shift
    case $verb in
    on) workshop_on "$@" ;;
    off | status)
        [ $# -eq 0 ] || usage_error "workshop $verb takes nothing after it"
        "workshop_$verb"
        ;;
    *) usage_error "'$(plain "$verb")' is not one of on, off and status; see: hyrax-setup --help" ;;
    esac
}

# own_networks: the IPv4 networks that this VM is in. The kernel makes their routes; DHCP also makes routes to
# single machines.
own_networks() { ip -o -4 route show proto kernel scope link 2>/dev/null | cut -d ' ' -f 1 | paste -s -d ' '; }

workshop_url() { say "$(base_url | sed 's|opendap/$|workshop/|')"; }

workshop_on() {
    own=$(own_networks)
    [ $# -gt 0 ] ||
        usage_error "workshop on needs the networks of the learners; for example: hyrax-setup workshop on ${own:-192.0.2.0/24}"
    # Its own message says what is wrong with a network.
    "$ROOT/usr/bin/hyrax-server" set workshop "$*" >/dev/null || exit
    systemctl enable --quiet --now hyrax-workshop.service ||
        fail "the notebooks do not start; see: journalctl -u hyrax-workshop"
    say "the notebooks are on, without a password, for $*: $(workshop_url)"
}

workshop_off() {
    "$ROOT/usr/bin/hyrax-server" set workshop default >/dev/null || exit
    systemctl disable --quiet --now hyrax-workshop.service ||
        fail "the notebooks do not stop; see: journalctl -u hyrax-workshop"
    say "the notebooks are off; pages and data are served on: $(workshop_url)"
}

workshop_status() {
    networks=$(server_setting WORKSHOP)
    if ! systemctl is-active --quiet hyrax-workshop.service; then
        say "notebooks: off; to start them: hyrax-setup workshop on NETWORK"
    else
        say "notebooks: on for ${networks:-nobody}"
        say "in use:    $(curl -s -m 10 http://127.0.0.1:8082/jupyter/api/kernels 2>/dev/null | grep -o '"execution_state"' | wc -l)"
    fi
    say "pages:     $(workshop_url)"
}
