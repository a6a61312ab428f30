# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-data
# hyrax-data --help, and COMMAND --help: each fits a console of 24 lines. Sourced by hyrax-data.

help() {
    case ${1:-} in
    add) "$(release ACCESS)_add_help" ;;
    list) list_help ;;
    status) status_help ;;
    test) test_help ;;
    remove) remove_help ;;
    *) all_help ;;
    esac
}

all_help() {
    cat <<END
hyrax-data: the data sets that this VM serves

$("$(release ACCESS)_help")
  hyrax-data list            names, and where they come from
  hyrax-data status [NAME]   state, size, and what is wrong
  hyrax-data test NAME       fetch a listing and a DDS through the server
  hyrax-data remove NAME     stop serving it; the data stay where they are
  hyrax-data COMMAND --help  more about it, and its options
  --json                     with any of them: the same for programs

The data set NAME is found at $DATA/NAME and is served at
  $(base_url)data/NAME/
END
}

# options_help: what add takes for both kinds
options_help() {
    cat <<END
  --options LIST        mount options besides the usual ones, with commas; of
$("${1}_allowed" | paste -s -d ' ' | fold -s -w 54 | sed 's/^/                        /; s/ *$//')
  --force               keep it although it cannot be used now
  --later               keep it without trying it
  --replace             put it in the place of the one that has its name
  --check               only check what stands here; change nothing
  --json                keys: those of list, warning; or error
END
}

list_help() {
    cat <<END
hyrax-data list

The names of the data sets, and where they come from.
  --json   a list of objects with the keys name, source, url (where it is
           served), kind (nfs, smb, local), user, version, options
END
}

status_help() {
    cat <<END
hyrax-data status [NAME]

Exit status 1 when something is wrong; what, stands below the data set.
  STATE   mounted     in use
          waiting     all is well; it is mounted when it is read
          local       on this VM's own disk
          away        the file server cannot be reached
          hung        the file server does not answer
          refused     the file server does not let this VM mount it
          unreadable  the data server's user may not read it
          off         its automount was stopped
  READ    how long ago it was last read: now while it is mounted, which ends
          after five minutes without a reader; then since that; - is never
          since the VM was started
  RTT/ms  the network's round trip to the file server, in milliseconds
  --json  the keys of list, and state, problem, size_bytes, used_bytes,
          last_access_s, rtt_ms
A data set that is away or hung comes back by itself with its file server.
END
}

test_help() {
    cat <<END
hyrax-data test NAME

Fetches, as a client does, the listing of the data set and the DDS of the
first data file in it (*.nc *.nc4 *.cdf *.h5 *.hdf5 *.he5 *.hdf).
  --json  keys: name, listing, file, dds_url, dds; or error
END
}

remove_help() {
    cat <<END
hyrax-data remove NAME

Stops serving it. Nothing of it is left on this VM, no password either; the
data on the file server are not touched.
  --json  keys: name, removed; or error
END
}
