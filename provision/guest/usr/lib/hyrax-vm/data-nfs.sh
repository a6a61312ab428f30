# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: the parts that only NFS needs. Sourced by hyrax-data.

nfs_type=nfs4
nfs_protocol=NFS
# 4: 4.1, or 4.0 where the server has no more (see /etc/nfsmount.conf.d/10-hyrax.conf). NFS 3 would need two more services that listen on the
# network: rpcbind and rpc.statd.
nfs_versions='4 4.2 4.1 4.0'
nfs_place='NFS export'
nfs_server='NFS server'

nfs_help() {
    cat <<END
  hyrax-data add nfs://HOST[:PORT]/EXPORT
                             serve an NFS export read-only; for example
                               hyrax-data add nfs://192.168.1.10/export/sst
END
}

nfs_add_help() {
    cat <<END
hyrax-data add nfs://HOST[:PORT]/EXPORT [OPTION ...]

Serves an NFS export read-only. hyrax-data tries it first; if something is
wrong, it says what, and changes nothing.
  --as NAME             its name (default: the last part of EXPORT)
  --nfs-version V       4.2, 4.1 or 4.0 (default: 4.1, or 4.0 of an old server)
$(options_help nfs)
END
}

nfs_source() { printf '%s:%s' "$host" "$path"; }

# vers=4 is the default, not 4.1: mount.nfs then goes down to what the server has.
# softerr, timeo, retrans: with a dead file server the reader gets an error instead of a hang.
# actimeo=5: a new or replaced file is seen after five seconds, not after up to a minute.
# retry=0: mount's own two minutes of retries would only keep the reader waiting.
nfs_options() {
    printf 'ro,vers=%s,port=%s,softerr,timeo=50,retrans=2,retry=0,actimeo=5,' "$vers" "$port"
    printf '%snosuid,nodev,noexec' "${extra:+$extra,}"
}

nfs_probe() { :; }

# nfs_allowed: mount options that a user may give, and their values; they replace those above
nfs_allowed() {
    cat <<END
rsize=4096-1048576
wsize=4096-1048576
timeo=10-600
retrans=1-5
actimeo=0-3600
acregmin=0-3600
acregmax=0-3600
acdirmin=0-3600
acdirmax=0-3600
lookupcache=all|positive|none
nconnect=1-16
sec=sys
END
}

# nfs_look_around OPTIONS: when an export was not found, sets offered to the exports that exist
nfs_look_around() {
    offered=
    case $(cat "$work/err") in
    *"No such file"* | *"Not a directory"* | *[Dd]enied* | *"not permitted"*) ;;
    *) return ;;
    esac
    with_deadline 15 unshare --mount "$LIB/nfs-exports" "$host:/" "$1" >"$work/exports" 2>/dev/null || return
    offered=$(cat "$work/exports")
    offered="; it offers ${offered:-nothing}"
}

# nfs_words STATUS: explains mount's error in $work/err
# A VM behind NAT sends from a port above 1023, which a Linux NFS server refuses by default.
nfs_words() {
    message=$(grep '^mount' "$work/err" | tail -n 1)
    case $1:$message in
    124:*) say "$host accepts connections on port $port, but its NFS server does not answer; check it on $host" ;;
    *"No such file"* | *"Not a directory"*)
        say "$host does not offer '$path' to this VM${offered:-; on $host see /etc/exports and: exportfs -v}" ;;
    *[Dd]enied* | *"not permitted"*)
        say "permission denied: $host does not let this VM ($(own_address)) mount '$path'; allow it in /etc/exports on $host, with the option 'insecure' if the VM is behind NAT${offered}" ;;
    *"not supported"*)
        if [ "$vers" = 4 ]; then
            say "$host does not offer NFS version 4; switch it on there"
        else
            say "$host does not speak NFS $vers; leave --nfs-version out to use a version that it speaks"
        fi
        ;;
    *"esolve"* | *"not known"*) words_for_probe nohost ;;
    *) say "$host accepts connections on port $port, but no NFS server answers there (${message##*: })" ;;
    esac
}

# nfs_forbidden WHAT: says that the data server's user may not read it
nfs_forbidden() {
    say "the data server's user ($user, uid $(id -u "$user")) may not read '$1'; on the file server make it readable for everybody (chmod -R o+rX DIRECTORY)"
}
