# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: the workshop's pages for everybody, and JupyterLab for the networks that the teacher has named
# (hyrax-setup workshop on NETWORK...).
workshop=$ROOT/usr/lib/hyrax/workshop/srv/workshop
lines >"$new/http-workshop.conf" <<'END'
map $http_upgrade $workshop_connection {
    default upgrade;
    "" "";
}
END
{
    lines <<END
location = /workshop { return 301 /workshop/; }
location /workshop/ {
    alias $workshop/www/;
    index index.html;
    types {
        text/html html;
        text/css css;
        text/javascript js;
        text/csv csv;
        image/png png;
        image/svg+xml svg;
        font/woff woff;
        font/woff2 woff2;
        application/json ipynb json;
    }
    add_header Cache-Control no-cache always;
    add_header X-Content-Type-Options nosniff always;
}
location /jupyter/ {
END
    for each in $(setting WORKSHOP); do say "    allow $each;"; done
    lines <<'END'
    deny all;
    proxy_pass http://127.0.0.1:8082;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $workshop_connection;
    proxy_set_header Host $reader_host;
    proxy_set_header X-Forwarded-Proto $reader_scheme;
    proxy_set_header X-Forwarded-For $remote_addr;
    # A notebook that nobody types into says nothing for long.
    proxy_read_timeout 1d;
    client_max_body_size 64m;
    access_log off;
    error_page 403 @no_notebooks;
    error_page 502 504 =503 @notebooks_away;
}
END
    lines <<END
location @no_notebooks {
    default_type text/plain;
    return 403 "The notebooks are not for your address. The teacher opens them with: hyrax-setup workshop on NETWORK$(ask_whom)\n";
}
location @notebooks_away {
    default_type text/plain;
    add_header Retry-After 10 always;
    return 503 "The notebooks do not answer yet. Try again in a minute.\n";
}
END
} >"$new/server-workshop.conf"
