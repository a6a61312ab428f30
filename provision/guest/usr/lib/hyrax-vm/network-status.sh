# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-network
# hyrax-network status. Sourced by hyrax-network.

# answers ADDRESS: does it answer? A router may ignore ping, but it answers ARP.
answers() {
    ping -c 1 -W 3 -q -I "$link" "$1" >/dev/null 2>&1 ||
        ip neigh show to "$1" dev "$link" 2>/dev/null | grep -q lladdr
}

# gateway_of LINK FAMILY: the address of its first default gateway; FAMILY is -4 or -6
gateway_of() { ip "$2" route show default dev "$1" 2>/dev/null | sed -n '1s/.*via \([^ ]*\).*/\1/p'; }

# facts LINK: sets carrier, driver, mac, method, found (addresses), gateway, servers and problem
facts() {
    problem=
    sys=$ROOT/sys/class/net/$1
    link=$1
    carrier=no
    [ "$(cat "$sys/carrier" 2>/dev/null)" != 1 ] || carrier=yes
    driver=$(basename "$(readlink "$sys/device/driver")")
    mac=$(cat "$sys/address")
    method=dhcp
    [ -z "$(static_address "$1")" ] || method=static
    found=$(addresses | sed -n "s/^$1 //p")
    gateway=$(gateway_of "$1" -4)
    [ -n "$gateway" ] || gateway=$(gateway_of "$1" -6)
    servers=$(resolvectl dns "$1" 2>/dev/null | sed 's/^[^:]*: *//')
    if [ -z "$found" ]; then
        problem=$(why_no_address "$1")
    elif [ -n "$gateway" ] && ! answers "$gateway"; then
        problem="the gateway $gateway does not answer"
    fi
}

status() {
    [ $# -eq 0 ] || usage_error "status takes nothing after it; '$(plain "$1")' is too much"
    bad=0
    if [ -n "$json" ]; then show_json; else show; fi
    return "$bad"
}

# show_json: {"hostname": ..., "links": [...]}; see docs/json.md
show_json() {
    adapters=$(for each in $(links); do
        facts "$each"
        json_object name "$link" connected:flag "${carrier%no}" driver "$driver" mac "$mac" \
            method "$method" addresses:json "$(strings "$found")" gateway:text "$gateway" \
            name_servers:json "$(strings "$servers")" problem:text "$problem"
    done | json_array)
    json_object hostname "$(cat "$ROOT/etc/hostname")" links:json "$adapters"
    # Inside a value a quote would be escaped: this matches only the key.
    case $adapters in
    '[]' | *'"problem": "'*) bad=1 ;;
    esac
}

# strings WORDS: prints a JSON array of the words, which are IP addresses
strings() { printf '[%s]' "$(echo "$1" | tr -s ' \n' '\n' | sed -n 's/..*/"&"/p' | paste -s -d ,)"; }

show() {
    say "hostname: $(cat "$ROOT/etc/hostname")"
    for each in $(links); do
        facts "$each"
        state='not connected'
        [ "$carrier" = no ] || state=connected
        say "$link: $state, $driver, $mac, $method"
        for address in $found; do say "  address: $address"; done
        [ -z "$gateway" ] || say "  gateway: $gateway"
        [ -z "$servers" ] || say "  name servers: $servers"
        [ -z "$problem" ] || { bad=1; say "  $problem"; }
    done
    [ -n "$(links)" ] || { bad=1; say "$(why_no_address eth0)"; }
}
