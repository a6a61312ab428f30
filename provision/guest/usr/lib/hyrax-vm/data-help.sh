# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-data
# hyrax-data --help and COMMAND --help. Each fits a console of 24 lines. Sourced by hyrax-data.

help() {
    case ${1:-} in
    add) "$(release ACCESS)_add_help" ;;
    aggregate) aggregate_help ;;
    list) list_help ;;
    status) status_help ;;
    test) test_help ;;
    remove) remove_help ;;
    restrict | unrestrict) restrict_help ;;
    *) all_help ;;
    esac
}

all_help() {
    cat <<END
hyrax-data: the data sets that this VM serves

$("$(release ACCESS)_help")
  hyrax-data list            list the data sets and where they come from
  hyrax-data status [NAME]   show state, size, and what is wrong
  hyrax-data test NAME       fetch a listing and a DDS through the server
  hyrax-data remove NAME     stop serving it; the data stay where they are
  hyrax-data aggregate NAME  serve many files as one data set (with Hyrax)
  hyrax-data restrict NAME   only for readers with a password, over HTTPS
  hyrax-data COMMAND --help  explain a command and its options
  --json                     with any of them: JSON output for programs

The data set NAME is in the folder $DATA/NAME and is served at
  $(base_url)data/NAME/
END
}

# options_help KIND: the options of add that both kinds have
options_help() {
    cat <<END
  --options LIST        more mount options, with commas between them, out of
$("${1}_allowed" | paste -s -d ' ' | fold -s -w 54 | sed 's/^/                        /; s/ *$//')
  --force               add it although it cannot be used now
  --later               add it without trying it
  --replace             replace the data set that has this name
  --check               only check this command line; change nothing
  --json                keys: those of list, warning; or error
END
}

list_help() {
    cat <<END
hyrax-data list

Lists the names of the data sets, and where they come from.
  --json   a list of objects with the keys name, source, url (where it is
           served), kind (nfs, smb, local), user, version, options
END
}

status_help() {
    cat <<END
hyrax-data status [NAME]

Shows the state of each data set, and below it what is wrong with it. If
anything is wrong, the exit status is 1.
  STATE   mounted     in use
          waiting     all is well; it is mounted when it is read
          local       on this VM's own disk
          away        the file server cannot be reached
          hung        the file server does not answer
          refused     the file server does not let this VM mount it
          unreadable  the data server's user may not read it
          off         its automount was stopped
  READ    time since it was last read, to within seven minutes: 'now' while it
          is mounted, and it is unmounted when nobody reads it; '-' if nobody
          has read it since the VM was started
  RTT/ms  the network's round trip to the file server, in milliseconds
  --json  the keys of list, and state, problem, size_bytes, used_bytes,
          last_access_s, rtt_ms
A data set that is away or hung comes back by itself with its file server.
END
}

test_help() {
    cat <<END
hyrax-data test NAME

Fetches the listing of the data set and the DDS of its first data file
(*.nc *.nc4 *.cdf *.h5 *.hdf5 *.he5 *.hdf), as a client does.
  --json  keys: name, listing, file, dds_url, dds; or error
END
}

remove_help() {
    cat <<END
hyrax-data remove NAME

Stops serving it, and deletes its settings and its password from this VM. The
data on the file server are not touched.
  --json  keys: name, removed; or error
END
}
