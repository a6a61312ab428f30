# shellcheck shell=sh disable=SC2154  # its variables are front-door's
# front-door: data sets for some readers only (hyrax-data restrict). Also when all other settings are left
# out: a mistake in one of those must not open a data set.
#
# The pattern is on the decoded path, in which .. and // are gone. What nginx and the data server might
# read in two ways is refused while there is a restricted data set.
names=$(restricted_sets)
[ -n "$names" ] || return 0

# quoted NAME: as a regular expression
quoted() { printf '%s' "$1" | sed 's/\./\\./g'; }
under=$(hidden_under)
{
    say "map \$uri \$restricted {"
    say '    default "";'
    for name in $names; do
        # Its folder, all that is in it, and responses that are about the folder itself.
        say "    \"~/$under$(quoted "$name")(/|\$|\.[A-Za-z0-9]+\$)\" $name;"
        # Files that hyrax-data aggregate has joined are for the same readers.
        grep -l "location=\"/data/$(quoted "$name")[/\"]" "$ROOT$DATA"/*.ncml 2>/dev/null | while read -r each; do
            say "    \"~/$under$(quoted "${each##*/}")\" $name;"
        done
    done
    say '}'
    lines <<'END_OF_MAPS'
map $restricted $realm {
    default "data set $restricted";
    "" off;
}
# The data server must not see a password that is the front door's.
map $restricted $passed_authorization {
    default "";
    "" $http_authorization;
}
map "$restricted,$reader_scheme" $without_https {
    default 1;
    "~^," "";
    "~,https$" "";
}
map "$uri $request_uri" $two_ways {
    default "";
    "~[;\\\\[:cntrl:]]|^[^ ]*[%]| [^?]*#" 1;
}
END_OF_MAPS
} >"$new/http-restrict.conf"
lines >"$new/data-restrict.conf" <<END
default_type text/plain;
if (\$two_ways) {
    return 400 "A path with % ; # or a backslash is not served here: some data sets are restricted.\n";
}
if (\$without_https) {
    return 403 "This data set is for readers with a password, and only over HTTPS.$(ask_whom)\n";
}
auth_basic \$realm;
auth_basic_user_file $RESTRICT/\$restricted.htpasswd;
proxy_set_header Authorization \$passed_authorization;
END
# Services of the data server that look into data sets which the path does not name; limits.sh has read
# their names.
if [ -n "${query_services:-}" ]; then
    lines >"$new/server-restrict.conf" <<END
location ~ ^/opendap/+(hyrax/+)?($query_services)(/|\$) {
    default_type text/plain;
    return 403 "This service is off here: some data sets are restricted.\n";
}
END
fi
# With a hidden one, the front door answers for the listing of all data sets; `landing` makes it.
for name in $names; do
    ! is_hidden "$name" || lines >"$new/server-hidden.conf" <<END
location ~ ^/opendap/(hyrax/)?${under%/}(/|/(contents|catalog|index)\.html)?\$ {
    return 302 /;
}
location ~ ^/opendap/(hyrax/)?${under}catalog\.xml\$ {
    root $ROOT/run/hyrax/www;
    types { }
    default_type application/xml;
    try_files /catalog.xml =404;
}
END
done
