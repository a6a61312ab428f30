# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: port 443 when HTTPS is on (hyrax-server https), and port 80 for an ACME server.
method=
[ -n "$defaults" ] || method=$(https_value METHOD)
redirect=
ipv6=
[ ! -e "$ROOT/proc/net/if_inet6" ] || ipv6=yes
if [ -n "$method" ] && https_is_on; then
    redirect=$(https_value REDIRECT)
    {
        say "listen $HTTPS_PORT ssl http2 backlog=4096;"
        [ -z "$ipv6" ] || say "listen [::]:$HTTPS_PORT ssl http2 backlog=4096;"
        say "ssl_certificate $HTTPS_PEM;"
        say "ssl_certificate_key $HTTPS_PEM;"
        lines <<'END_OF_TLS'
# "Intermediate" of Mozilla's guideline 5.7: all clients of the last ten years. No Strict-Transport-
# Security: it would send readers of port 8080 to HTTPS, too.
ssl_protocols TLSv1.2 TLSv1.3;
ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
ssl_session_cache shared:tls:2m;
ssl_session_timeout 1d;
ssl_session_tickets off;
END_OF_TLS
    } >"$new/server-https.conf"
fi
if [ "$redirect" = yes ]; then
    # This machine and load balancers ask on port 8080 as before.
    lines >"$new/http-redirect.conf" <<'END_OF_MAP'
map $reader_scheme,$remote_addr,$uri $to_https {
    default "";
    "~^https," "";
    "~^http,(127\.|::1,)" "";
    "~^http,[^,]*,/health$" "";
    "~^http," yes;
}
END_OF_MAP
    say "if (\$to_https) { return 301 https://\$host\$request_uri; }" >"$new/server-0redirect.conf"
fi
if [ "$method" = acme ]; then
    {
        say "server {"
        say "    listen $HTTP_PORT;"
        [ -z "$ipv6" ] || say "    listen [::]:$HTTP_PORT;"
        say "    server_name $(https_value HOST);"
        say "    location /.well-known/acme-challenge/ {"
        say "        alias $ROOT/run/hyrax/acme/;"
        say "        default_type text/plain;"
        say "    }"
        if https_is_on; then
            say "    location / { return 301 https://\$host\$request_uri; }"
        else
            say "    location / { return 404; }"
        fi
        say "}"
    } >"$new/http-acme.conf"
fi
