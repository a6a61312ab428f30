# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: what is wrong with a file server, in words, with what to do next.
# Sourced after lib.sh. Each function prints one line.

# words_for_probe VERDICT HOST PORT: the verdict is tcp-probe's
words_for_probe() {
    case $1 in
    nohost) say "the host '$2' is not found; check its spelling, or use its IP address" ;;
    refused) say "$2 refuses connections on port $3; start its NFS server, or name its port: nfs://HOST:PORT/EXPORT" ;;
    silent) say "no answer from $2 on port $3; is it switched on, and does its firewall let $(own_address) in?" ;;
    *) say "$2 cannot be reached from this VM ($(own_address)); check the VM's network with: ip address; ping $2" ;;
    esac
}

# words_for_mount STATUS MESSAGE HOST PORT EXPORT: the message is mount's
# A VM behind NAT speaks from a port above 1023, which a Linux NFS server refuses by default.
words_for_mount() {
    case $1:$2 in
    124:*) say "$3 accepts connections on port $4, but its NFS server does not answer; look at it on $3" ;;
    *"No such file"* | *"Not a directory"*)
        say "$3 does not offer '$5' to this VM; on $3 see /etc/exports and: exportfs -v" ;;
    *[Dd]enied* | *"not permitted"*)
        say "permission denied: $3 does not let this VM ($(own_address)) mount '$5'; allow it in /etc/exports on $3, with the option 'insecure' if the VM is behind NAT" ;;
    *"not supported"*) say "$3 has no NFS version 4; switch it on there" ;;
    *"efused"*) words_for_probe refused "$3" "$4" ;;
    *"timed out"*) words_for_probe silent "$3" "$4" ;;
    *"esolve"* | *"not known"*) words_for_probe nohost "$3" "$4" ;;
    *) say "what answers on $3 port $4 is no NFS server that this VM understands (${2##*: })" ;;
    esac
}

# words_for_look VERDICT SERVER_USER EXPORT: the verdict is nfs-trial's
words_for_look() {
    case $1 in
    forbidden) say "the data server's user ($2, uid $(id -u "$2")) may not read '$3'; on the file server make it readable for everybody (chmod o+rx DIRECTORY)" ;;
    forbidden-file*) say "the data server's user ($2, uid $(id -u "$2")) may not read '${1#* }'; on the file server make it readable for everybody (chmod -R o+rX DIRECTORY)" ;;
    esac
}

own_address() {
    first=$(addresses | sed -n '1s/^[^ ]* //p')
    printf '%s' "${first:-it has no address}"
}
