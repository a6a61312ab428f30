# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: what is NFS's own. Sourced by hyrax-data.

nfs_type=nfs4
nfs_place='NFS export'
nfs_server='NFS server'

nfs_help() {
    cat <<END
  hyrax-data add nfs://HOST[:PORT]/EXPORT [--as NAME] [--force]
                            serve an NFS export read-only; NAME is its last
                            part unless given; --force keeps it although it
                            cannot be reached now
                              hyrax-data add nfs://192.168.1.10/export/sst
END
}

nfs_source() { printf '%s:%s' "$host" "$path"; }

# vers=4, not 4.2: mount.nfs then tries 4.2 first and goes down to what the server has.
# softerr, timeo, retrans: a dead file server gives the reader an error instead of a hang.
# actimeo=5: a new or replaced file is seen after five seconds, not after up to a minute.
# retry=0: mount's own two minutes of retries would only keep the reader waiting.
nfs_options() {
    printf 'ro,vers=4,port=%s,softerr,timeo=50,retrans=2,retry=0,actimeo=5,nosuid,nodev,noexec' "$port"
}

nfs_probe() { :; }

nfs_conf() { :; }

# nfs_words STATUS: what mount says in $work/err, in words
# A VM behind NAT speaks from a port above 1023, which a Linux NFS server refuses by default.
nfs_words() {
    message=$(grep '^mount' "$work/err" | tail -n 1)
    case $1:$message in
    124:*) say "$host accepts connections on port $port, but its NFS server does not answer; look at it on $host" ;;
    *"No such file"* | *"Not a directory"*)
        say "$host does not offer '$path' to this VM; on $host see /etc/exports and: exportfs -v" ;;
    *[Dd]enied* | *"not permitted"*)
        say "permission denied: $host does not let this VM ($(own_address)) mount '$path'; allow it in /etc/exports on $host, with the option 'insecure' if the VM is behind NAT" ;;
    *"not supported"*) say "$host has no NFS version 4; switch it on there" ;;
    *"efused"*) words_for_probe refused ;;
    *"timed out"*) words_for_probe silent ;;
    *"esolve"* | *"not known"*) words_for_probe nohost ;;
    *) say "$host accepts connections on port $port, but no NFS server answers there (${message##*: })" ;;
    esac
}

# nfs_forbidden WHAT: the data server's user may not read it
nfs_forbidden() {
    say "the data server's user ($user, uid $(id -u "$user")) may not read '$1'; on the file server make it readable for everybody (chmod -R o+rX DIRECTORY)"
}
