# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: messages that say what is wrong with a file server and what to do next.
# Sourced after lib.sh. Each function prints one line about the data set at kind, host, port, path.

# words_for_probe VERDICT: explains a verdict of tcp-probe
words_for_probe() {
    case $1 in
    nohost) say "the host '$host' is not found; check its spelling, or use its IP address" ;;
    refused) say "$host refuses connections on port $port; start its $(of_kind server), or name its port: $kind://HOST:PORT/..." ;;
    silent) say "no answer from $host on port $port; is it switched on, and does its firewall let $(own_address) in?" ;;
    *) say "$host cannot be reached from this VM ($(own_address)); check this VM's network with: hyrax-network; ping $host" ;;
    esac
}

# words_for_look VERDICT: explains a verdict of data-trial
words_for_look() {
    case $1 in
    forbidden) "${kind}_forbidden" "$path" ;;
    # The name comes from the file server.
    forbidden-file*) "${kind}_forbidden" "$(printf '%s' "${1#* }" | tr '\n\t' '??' | visible)" ;;
    esac
}

# of_kind WORD: the value of nfs_WORD or smb_WORD
of_kind() { eval "say \"\$${kind}_$1\""; }

# own_address: the VM's first address, for a message
own_address() {
    first=$(addresses | sed -n '1s/^[^ ]* //p')
    printf '%s' "${first:-it has no address}"
}
