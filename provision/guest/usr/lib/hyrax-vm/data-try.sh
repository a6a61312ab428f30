# shellcheck shell=sh disable=SC1007,SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: can the file server be reached, and does it let this VM read? Sourced by hyrax-data.

# probe: is the file server's port open? Sets rtt (milliseconds), or problem.
probe() {
    rtt=
    answer=$("$LIB/tcp-probe" "$host" "$port" 5 rtt)
    case $answer in
    open*) rtt=${answer#open }; return 0 ;;
    esac
    problem=$(words_for_probe "$answer")
    return 1
}

# try_mount OPTIONS SECONDS: mounts the data for a moment in a private namespace; the data set's own
# mount is not touched. Sets verdict (data-trial's), sizes and problem. When it fails it also sets
# status: 124 if the file server did not answer in time.
try_mount() {
    verdict= sizes= status=1
    "${kind}_probe" || return 1
    with_deadline "$2" unshare --mount "$LIB/data-trial" "$(of_kind type)" "$("${kind}_source")" "$1" "$user" \
        >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" -ne 0 ]; then
        # mount's own deadline may end first.
        ! grep -q '^mount.*timed out' "$work/err" || status=124
        "${kind}_look_around" "$1"
        problem=$("${kind}_words" "$status")
        return 1
    fi
    sizes=$(sed -n 1p "$work/out")
    verdict=$(sed 1d "$work/out")
    problem=$(words_for_look "$verdict")
}
