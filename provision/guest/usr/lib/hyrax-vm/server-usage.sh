# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-server
# hyrax-server usage: how often the data are read. Sourced by hyrax-server.

usage_help() {
    cat <<END_OF_HELP
hyrax-server usage: how often the data are read, by month

  hyrax-server usage [--month YYYY-MM|all] [--by dataset|client|status]
                     [--csv|--json]

Without --month, the present month. Robots are counted apart; 'sample' are the
samples, '-' is everything but data sets. The last 13 months are kept.
See also: hyrax-server set anonymous, hyrax-server set usage-page
END_OF_HELP
}

usage() {
    month=$(date -u +%Y-%m) by=dataset form=text
    while [ $# -gt 0 ]; do
        case $1 in
        --*=*)
            pair=$1
            shift
            set -- "${pair%%=*}" "${pair#*=}" "$@"
            ;;
        esac
        case $1 in
        --month) month=${2:-}; shift ;;
        --by) by=${2:-}; shift ;;
        --csv) form=csv ;;
        --json)
            form=json
            # shellcheck disable=SC2034  # usage_error reads it
            json=yes
            ;;
        -h | --help) usage_help; exit 0 ;;
        *) usage_error "'$(plain "$1")' is not an option of usage; see: hyrax-server usage --help" ;;
        esac
        [ $# -eq 0 ] || shift
    done
    case $month in
    all | [0-9][0-9][0-9][0-9]-[01][0-9]) ;;
    *) usage_error "'$(plain "$month")' is not a month; for example: --month $(date -u +%Y-%m), or --month all" ;;
    esac
    case $by in
    dataset | client | status) ;;
    *) usage_error "'$(plain "$by")' is not one of: dataset, client, status" ;;
    esac
    # What is counted is shown, also when the disk is full.
    why=$("$LIB/usage-count" 2>&1) || warn "the newest requests are not counted: $(plain "$why")"
    "$LIB/usage-report" "$month" "$by" "$form"
}
