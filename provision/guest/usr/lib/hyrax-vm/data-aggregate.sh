# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-data
# hyrax-data aggregate: joins files along a dimension to one data set, which Hyrax serves. Sourced by
# hyrax-data.
#
# It writes an NcML file with a <scan>: the server looks for the files at each request, so files that
# are added are in the data set at once.

aggregate_help() {
    cat <<END
hyrax-data aggregate NAME --over 'DATASET/*.nc' --dim DIMENSION

Joins files along a dimension that they have, in the order of their names, to
one data set: $(base_url)data/NAME.ncml
Files that are added are in it at once. Needs Hyrax as the data server.
  --over PATTERN   the files, below $DATA: * and ? may be in the last
                   part; put it between quotes
  --dim DIMENSION  for example time
  --replace        replace the aggregation that has this name
  --json           keys: name, url, files, length; or error

  hyrax-data aggregate NAME      check again whether all of its files fit
  sudo rm $DATA/NAME.ncml   remove it; the files stay
END
}

aggregate() {
    [ "$(release SERVER)" = hyrax ] ||
        fail "aggregate needs Hyrax as the data server, and this VM has $(server_name); use an image with Hyrax"
    name='' over='' dim='' replace='' new=''
    while [ $# -gt 0 ]; do
        case $1 in
        --over | --dim)
            [ $# -ge 2 ] || usage_error "$1 needs a value; see: hyrax-data aggregate --help"
            if [ "$1" = --over ]; then over=$2; else dim=$2; fi
            shift
            ;;
        --replace) replace=yes ;;
        -*) usage_error "'$(plain "$1")' is not an option of aggregate; see: hyrax-data aggregate --help" ;;
        *)
            [ -z "$name" ] || usage_error "aggregate takes one name; put the pattern between quotes: --over 'ocean/*.nc'"
            name=$1
            ;;
        esac
        shift
    done
    [ -n "$name" ] || usage_error "aggregate needs a name; see: hyrax-data aggregate --help"
    check_name "$name"
    ncml=$ROOT$DATA/$name.ncml
    if [ -z "$over$dim" ]; then
        [ -f "$ncml" ] || usage_error "no aggregation is called '$name'; make it with --over and --dim, see: hyrax-data aggregate --help"
        over=$(sed -n 's/^<!-- files \(.*\) dimension .* -->$/\1/p' "$ncml")
        dim=$(sed -n 's/^<!-- files .* dimension \(.*\) -->$/\1/p' "$ncml")
        check_pattern
        compare_files
    else
        check_pattern
        lock_data
        [ -n "$replace" ] || [ ! -e "$ncml" ] || usage_error "the aggregation '$name' exists; to replace it, add --replace"
        compare_files
        new=yes
        [ ! -f "$ncml" ] || cp "$ncml" "$work/before"
        write_ncml | write_file "$ncml" || fail "$ncml cannot be written; is the disk full? See: df -h"
    fi
    look_at_aggregate
}

# check_pattern: refuses what could lead out of the data, or could not be written into the NcML file
check_pattern() {
    example="for example: --over 'ocean/*.nc' --dim time"
    case $over in
    '' | /* | *[!A-Za-z0-9._/*?-]* | *..* | */) usage_error "'$(plain "$over")' is not a pattern of files below $DATA; expected: letters, digits, . _ - / and * or ? in the last part; $example" ;;
    */*) ;;
    *) usage_error "'$over' names no data set; $example" ;;
    esac
    folder=${over%/*} files=${over##*/}
    case $folder in
    *[*?]*) usage_error "'$over': * and ? may be only in the last part; $example" ;;
    esac
    case $dim in
    '' | *[!A-Za-z0-9._-]*) usage_error "'$(plain "$dim")' is not the name of a dimension; $example" ;;
    esac
    aggregation=$name
    check_known "${folder%%/*}"
    name=$aggregation # check_known has set it
    ! is_restricted "${folder%%/*}" ||
        usage_error "'${folder%%/*}' is restricted, and the joined files would be open; join them first: hyrax-data unrestrict ${folder%%/*}, hyrax-data aggregate, hyrax-data restrict"
}

# shape FILE: the declarations in a DDS without the file's name and without the length of $dim, one a
# line
shape() { sed -e '/^}.*;$/d; /^Dataset {$/d; s/^ *//' -e "s/\[$dim = [0-9]*\]/[$dim]/g" "$1" | sort -u; }

# compare_files: fetches the DDS of each file; says in words which one does not fit the first
compare_files() {
    with_deadline 60 find "$ROOT$DATA/$folder" -maxdepth 1 -type f -name "$files" -printf '%f\n' >"$work/found" 2>/dev/null ||
        fail "$DATA/$folder cannot be read; see: hyrax-data status ${folder%%/*}"
    sort "$work/found" >"$work/files"
    count=$(wc -l <"$work/files")
    [ "$count" -gt 0 ] || fail "no file in $DATA/$folder is called $files; see: ls $DATA/$folder"
    ! grep -q '[^A-Za-z0-9._+~-]' "$work/files" ||
        fail "the file '$(plain "$(grep -m 1 '[^A-Za-z0-9._+~-]' "$work/files")")' cannot be joined; rename it, with letters, digits and . _ + ~ - only"
    mkdir "$work/dds"
    # One curl for all: to start one for each takes longer than its answer.
    sed "s|.*|url=http://127.0.0.1:$PORT/opendap/data/$folder/&.dds\noutput=$work/dds/&|" "$work/files" >"$work/curl"
    curl -s -f -m 600 -K "$work/curl" 2>/dev/null
    first=$(head -n 1 "$work/files")
    while IFS= read -r each; do
        dds=$work/dds/$each
        [ -s "$dds" ] || fail "$each: the server cannot read it; see: curl $(base_url)data/$folder/$each.dds"
        grep -q "\[$dim = [0-9]*\]" "$dds" ||
            fail "$each: no variable has the dimension '$dim'; its dimensions: $(grep -o '\[[^] ]* =' "$dds" | tr -d '[ =' | sort -u | paste -s -d ' ')"
        shape "$dds" >"$work/this"
        [ "$each" != "$first" ] || cp "$work/this" "$work/first"
        cmp -s "$work/this" "$work/first" || does_not_fit
    done <"$work/files"
}

does_not_fit() {
    more=$(comm -23 "$work/this" "$work/first" | sed "s/.*/has '&'/; q")
    less=$(comm -13 "$work/this" "$work/first" | sed "s/.*/lacks '&'/; q")
    fail "$each does not fit $first: it $more${more:+${less:+, }}$less"
}

write_ncml() {
    pattern=$(printf '%s' "$files" | sed 's/\./\\./g; s/\*/[^\/]*/g; s/?/[^\/]/g')
    cat <<END
<?xml version="1.0" encoding="UTF-8"?>
<!-- files $over dimension $dim -->
<netcdf xmlns="http://www.unidata.ucar.edu/namespaces/netcdf/ncml-2.2">
  <aggregation type="joinExisting" dimName="$dim">
    <scan location="/data/$folder" regExp="^.*/$pattern\$" subdirs="false"/>
  </aggregation>
</netcdf>
END
}

# look_at_aggregate: asks the server for the aggregation; takes it back if it is not served
look_at_aggregate() {
    status=$(curl -s -m 120 -o "$work/answer" -w '%{http_code}' "http://127.0.0.1:$PORT/opendap/data/$name.ncml.dds")
    if [ "$status" != 200 ]; then
        [ -z "$new" ] || delete_file "$ncml"
        [ ! -f "$work/before" ] || write_file "$ncml" <"$work/before"
        fail "the server does not serve these files as one (HTTP $status): $(plain "$(sed -n 's/^ *message = "\(.*\)";$/\1/p' "$work/answer")"); see: hyrax-server logs"
    fi
    length=$(sed -n "s/.*\[$dim = \([0-9]*\)\].*/\1/p" "$work/answer" | head -n 1)
    url=$(base_url)data/$name.ncml
    if [ -n "$json" ]; then
        json_object name "$name" url "$url" files:number "$count" length:number "${length:-0}"
    else
        say "$name joins $count files along $dim, which has ${length:-0} values: $url"
    fi
}
