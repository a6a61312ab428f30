# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: the ports. IPv4 has a socket of its own: on one for both, 192.0.2.7 would be
# ::ffff:192.0.2.7. A kernel without IPv6 refuses [::].
{
    say "listen $PORT backlog=4096;"
    [ ! -e "$ROOT/proc/net/if_inet6" ] || say "listen [::]:$PORT backlog=4096;"
} >"$new/server-listen.conf"
