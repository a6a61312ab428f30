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
} >"$new/data-limits.conf"
say "$free" >"$new/free"
cat >"$new/http-method.conf" <<END
map \$request_method \$data_server_method {
    default \$request_method;
    HEAD $head_method;
}
END
