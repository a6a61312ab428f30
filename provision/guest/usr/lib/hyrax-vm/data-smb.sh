# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: the parts that only SMB needs. Sourced by hyrax-data.
#
# login is the user as the file server knows it, USER or DOMAIN\USER; empty for a guest.

smb_type=cifs
smb_protocol=SMB
smb_versions='3.1.1 3.0.2 3.0 2.1'
smb_place=share
smb_server='SMB server (Windows file sharing)'

smb_help() {
    cat <<END
  hyrax-data add smb://HOST[:PORT]/SHARE[/FOLDER] [--user USER]
                             serve a Windows share read-only; for example
                               hyrax-data add smb://192.168.1.10/sst --user me
                             or as in Windows, but in quotes
                               hyrax-data add '\\\\PC\\sst' --user 'DOMAIN\\me'
END
}

smb_add_help() {
    cat <<END
hyrax-data add smb://HOST[:PORT]/SHARE[/FOLDER] [OPTION ...]

Serves a Windows share read-only. hyrax-data tries it first; if something is
wrong, it says what, and changes nothing.
  --user USER           USER or, in quotes, 'DOMAIN\\USER' (default: a guest)
  --domain DOMAIN       the user's domain, if it is not in --user
  --password-file FILE  read the password from its first line (default: ask, or
                        read the first line of the standard input)
  --as NAME             its name (default: the last part of SHARE/FOLDER)
  --smb-version V       3.1.1 (default), 3.0.2, 3.0 or 2.1
$(options_help smb)
END
}

smb_source() { printf '//%s%s' "$host" "$path"; }

# smb_options CREDENTIALS
# soft, echo_interval: after 15 s without an answer the reader gets an error instead of a hang.
# actimeo=5: a new or replaced file is seen after five seconds.
# nosharesock: each data set has its own connection; a guest cannot share one that is signed.
# nobrl: no byte-range locks, which HDF5 would ask for.
# uid, file_mode ...: the owner and the mode that all files have here; the file server decides what
# can be read.
# sign: nobody on the way can change the data; a guest has no key to sign with. The client encrypts
# when the server or the share requires it.
smb_options() {
    printf 'ro,vers=%s,port=%s,soft,echo_interval=5,actimeo=5,nosharesock,nobrl,iocharset=utf8,' "$vers" "$port"
    printf 'uid=%s,forceuid,gid=%s,forcegid,' "$(id -u "$user")" "$(id -g "$user")"
    printf 'file_mode=0444,dir_mode=0555,%s' "${login:+sign,}"
    printf '%snosuid,nodev,noexec,credentials=%s' "${extra:+$extra,}" "$1"
}

# smb_allowed: mount options that a user may give, and their values; they replace those above
smb_allowed() {
    cat <<END
rsize=4096-4194304
wsize=4096-4194304
actimeo=0-3600
acregmax=0-3600
acdirmax=0-3600
echo_interval=1-60
cache=strict|loose|none
sec=ntlmssp|ntlmsspi
seal
nodfs
noserverino
END
}

# Listing a server's shares needs another protocol (MS-SRVS over DCE/RPC); its client is not in the
# image.
smb_look_around() { :; }

# smb_credentials: writes $work/credentials for mount.cifs. The password comes from a file, the
# standard input or the terminal. It is never on a command line: the shell has printf and read
# built in.
smb_credentials() {
    password=
    if [ -n "$login" ]; then
        guest_hint=' (to connect as a guest, leave --user out)'
        read_password
    elif [ -n "$password_file" ]; then
        usage_error "--password-file needs --user"
    fi
    {
        printf 'username=%s\npassword=%s\n' "${smb_user:-guest}" "$password"
        [ -z "$smb_domain" ] || printf 'domain=%s\n' "$smb_domain"
    } | private "$work/credentials"
    password=
}

read_password() {
    if [ -n "$password_file" ]; then
        if [ ! -r "$password_file" ] || [ -d "$password_file" ]; then
            usage_error "'$(plain "$password_file")' cannot be read; name a file whose first line is the password"
        fi
        IFS= read -r password <"$password_file" || :
        from="the first line of '$(plain "$password_file")'"
    elif [ -t 0 ]; then
        # Before the prompt: the user may type as soon as it is there.
        terminal=$(stty -g)
        stty -echo
        printf 'Password of %s on %s: ' "$login" "$host" >&2
        IFS= read -r password || :
        stty "$terminal"
        terminal=
        echo >&2
        from='the password'
    else
        IFS= read -r password || :
        from='the standard input'
    fi
    # A file written on Windows ends its lines in CR LF.
    password=${password%"$(printf '\r')"}
    [ -n "$password" ] || usage_error "$from is empty; $login needs a password$guest_hint"
    [ ${#password} -le 512 ] || usage_error "$from has more than 512 bytes, which is too long for a password"
}

# smb_probe: is it an SMB server, and is it new enough? Sets problem, and status as try_mount does.
smb_probe() {
    newest=$("$LIB/smb-probe" "$host" "$port" 5)
    case $newest in
    silent) status=124 problem="$host accepts connections on port $port, but does not answer as an SMB server; check its SMB server on $host" ;;
    none) problem="what answers on $host port $port is not an SMB server of version 2 or later (version 1 is not supported: it is not safe)" ;;
    2.0.2) problem="$host speaks SMB 2.0.2 at most, which this VM does not use; upgrade its SMB server" ;;
    *)
        # The versions sort as text: 2.1, 3.0, 3.0.2, 3.1.1.
        [ "$(printf '%s\n' "$newest" "$vers" | sort | tail -n 1)" != "$newest" ] || return 0
        problem="$host speaks SMB $newest at most, not $vers; upgrade it, or add to the command: --smb-version $newest"
        ;;
    esac
    return 1
}

# smb_words STATUS: explains the errors of mount and of the kernel in $work/err
smb_words() {
    share=${path#/}
    share=${share%%/*}
    message=$(grep '^mount error' "$work/err" | tail -n 1)
    case $1:$(cat "$work/err") in
    124:*) say "$host accepts connections on port $port, but its SMB server does not answer; check it on $host" ;;
    *STATUS_LOGON_FAILURE* | *STATUS_WRONG_PASSWORD* | *STATUS_NO_SUCH_USER*)
        if [ -n "$login" ]; then
            say "$host refuses the user '$login' or the password; check both (a user of a domain is written 'DOMAIN\\USER', in quotes)"
        else
            say "$host does not let guests in; name a user: --user USER"
        fi
        ;;
    *STATUS_ACCOUNT_* | *STATUS_PASSWORD_* | *STATUS_INVALID_LOGON_HOURS* | *STATUS_LOGON_TYPE*)
        reason=$(sed -n 's/.* STATUS_\([A-Z_]*\).*/\1/p' "$work/err" | head -n 1 | tr A-Z_ 'a-z ')
        say "$host does not let $(smb_who) in: $reason" ;;
    *"sign fail"*)
        if [ -n "$login" ]; then
            say "$host does not know the user '$login' and treats it as a guest; check the user's spelling"
        else
            say "$host requires signed connections, which a guest cannot have; name a user: --user USER"
        fi
        ;;
    *"error(2)"* | *"error(20)"*)
        # The kernel reports only once which of the two is missing.
        folder=${path#"/$share"}
        [ -z "$folder" ] || folder=", or no folder '${folder#/}' in it"
        say "$host has no share '$share'$folder; on $host see the names of its shares (Windows: net share; Samba: testparm -s)"
        ;;
    *"error(13)"*) say "access denied: $(smb_forbidden "$path")" ;;
    *"error(95)"*) say "$host does not speak SMB $vers; leave --smb-version out" ;;
    *"error(111)"*) words_for_probe refused ;;
    *"could not resolve"*) words_for_probe nohost ;;
    *) say "$host cannot be used (${message:-exit status $1}); see: journalctl -k" ;;
    esac
}

smb_who() {
    if [ -n "$login" ]; then say "the user '$login'"; else say "a guest (no --user was named)"; fi
}

# smb_forbidden WHAT: says that the file server does not allow reading it
smb_forbidden() {
    say "$host does not let $(smb_who) read '$1'; allow it in the permissions of the share and of the folder"
}
