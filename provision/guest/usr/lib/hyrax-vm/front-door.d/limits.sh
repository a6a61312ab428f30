# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: how much one reader and all readers may hold at the same time. The server's own file
# /usr/lib/hyrax/front-door may say otherwise.
reader_connections=128
all_connections=512
head_method=HEAD
if [ -r "$ROOT/usr/lib/hyrax/front-door" ]; then
    # shellcheck source=provision/servers/hyrax/guest/usr/lib/hyrax/front-door
    . "$ROOT/usr/lib/hyrax/front-door"
fi
# What a slow reader has not yet fetched waits on the disk, so that the data server is free: all of
# them together take at most half of what is free now. `health` follows what is free.
free=$(free_mib)
buffer=$((free / 2 / all_connections))
[ "$buffer" -le 256 ] || buffer=256
{
    say "limit_conn reader $reader_connections;"
    say "limit_conn readers $all_connections;"
    say "proxy_max_temp_file_size ${buffer}m;"
    rate=$(setting LIMIT_RATE)
    [ -z "$rate" ] || say "limit_rate $rate;"
    requests=$(setting LIMIT_REQUESTS)
    # As many as are allowed in a minute or a second may come at once.
    [ -z "$requests" ] || say "limit_req zone=requests burst=${requests%/*} nodelay;"
} >"$new/data-limits.conf"
say "$free" >"$new/free"
{
    say "geo \$classroom {"
    say '    default "";'
    # the networks of `hyrax-setup workshop on`
    for each in $(setting WORKSHOP); do say "    $each in-;"; done
    say "}"
} >"$new/http-classroom.conf"
often=
if [ -n "$requests" ]; then
    say "limit_req_zone \$reader zone=requests:4m rate=$(say "$requests" | sed 's|/|r/|');" >"$new/http-requests.conf"
    often=" This server answers at most $(say "$requests" | sed 's|/s| a second|; s|/m| a minute|') of one reader."
fi
lines >"$new/server-busy.conf" <<END
location @busy {
    default_type text/plain;
    add_header Retry-After 10 always;
    return 503 "Too many requests at the same time. Try again in some seconds, with fewer at once.$often$(ask_whom)\n";
}
END
cp "$LIB/robots.txt" "$new/robots.txt"
[ ! -f "$ROOT/etc/hyrax/robots.txt" ] || cp "$ROOT/etc/hyrax/robots.txt" "$new/robots.own"
lines >"$new/http-method.conf" <<END
map \$request_method \$data_server_method {
    default \$request_method;
    HEAD $head_method;
}
END
