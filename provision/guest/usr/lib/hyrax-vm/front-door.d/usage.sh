# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: whose requests are in the log, and the page /usage.
{
    # Of this machine's own questions there are many.
    lines <<'END'
map $remote_addr $logged {
    default 1;
    "~^127\." "";
    ::1 "";
}
END
    if [ "$(setting ANONYMOUS)" = yes ]; then
        lines <<'END'
# Networks only: /24 of IPv4, /48 of IPv6.
map $remote_addr $logged_address {
    default "";
    "~^(?<net4>[0-9]+\.[0-9]+\.[0-9]+)\." $net4.0;
    "~^(?<net6>[0-9a-f]+:[0-9a-f]+:[0-9a-f]+):" $net6::;
    "~^(?<net6short>[0-9a-f]+(:[0-9a-f]+)?)::" $net6short::;
}
END
    else
        say "map '' \$logged_address { default \$remote_addr; }"
    fi
} >"$new/http-address.conf"
if [ "$(setting USAGE_PAGE)" = yes ]; then
    lines >"$new/server-usage.conf" <<END
location = /usage {
    root $ROOT/run/hyrax/www;
    default_type text/html;
    try_files /usage.html =404;
    add_header Cache-Control no-cache always;
    add_header Content-Security-Policy "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'" always;
}
END
fi
