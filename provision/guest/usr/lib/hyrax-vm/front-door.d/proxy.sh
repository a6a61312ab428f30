# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: what the data server learns about the reader. Only a proxy that is set
# (hyrax-server set proxy) may say that a reader has another address, host or scheme.
{
    trusted=$(setting PROXY)
    echo "geo \$realip_remote_addr \$by_proxy {"
    say '    default 0;'
    for each in $trusted; do say "    $each 1;"; done
    say '}'
    for each in $trusted; do say "set_real_ip_from $each;"; done
    lines <<'END'
real_ip_header X-Forwarded-For;
real_ip_recursive on;
map $by_proxy,$http_x_forwarded_proto $reader_scheme {
    default $scheme;
    1,https https;
    1,http http;
}
map $by_proxy,$http_x_forwarded_host $reader_host {
    default $typed_host;
    "~^1,(?<outer_host>[A-Za-z0-9._-]+(?::[0-9]+)?|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?)(?:,|$)" $outer_host;
}
# HTTP/1.0 needs no Host.
map $http_host $typed_host {
    default $http_host;
    "" $server_addr:$server_port;
}
map $reader_host $host_port {
    default "";
    "~:(?<given_port>[0-9]+)$" $given_port;
}
map $host_port,$reader_scheme $reader_port {
    default $host_port;
    ,http 80;
    ,https 443;
}
END
} >"$new/http-reader.conf"
