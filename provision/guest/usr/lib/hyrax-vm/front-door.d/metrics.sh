# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: /metrics for Prometheus, on this machine and to the networks that are set; `metrics` answers.
{
    lines <<END
location = /metrics {
    allow 127.0.0.0/8;
    allow ::1;
END
    for each in $(setting METRICS); do say "    allow $each;"; done
    lines <<END
    deny all;
    proxy_pass http://unix:$ROOT/run/hyrax/metrics.sock:/;
    access_log off;
    error_page 403 @no_metrics;
    error_page 502 504 =503 @away;
}
location @no_metrics {
    default_type text/plain;
    return 403 "Metrics are not for your address. The administrator of this server opens them with: hyrax-server set metrics NETWORK.$(ask_whom)\n";
}
location = /connections {
    allow 127.0.0.0/8;
    deny all;
    stub_status;
    access_log off;
}
END
} >"$new/server-metrics.conf"
