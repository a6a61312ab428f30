# shellcheck shell=sh disable=SC2034,SC2153,SC2154  # variables are shared with hyrax-data
# A change of a data set is made as a whole or not at all, whatever interrupts it. Sourced by hyrax-data.
#
# While a data set is changed, $UNDO/NAME is there. It holds the files of the data set that was served
# before; it is empty when there was none, or when the data set is to be removed. A signal, the next
# command, the watchdog or the next boot put back what it holds.

# lock_data: takes the lock, and first of all puts back what a killed command or a power cut has left
lock_data() {
    lock data
    for change in "$UNDO"/*; do
        [ ! -d "$change" ] || put_back "${change##*/}"
    done
}

# recover: the command of the boot and of the watchdog; it waits for no file server
recover() {
    later=yes
    lock_data
}

# begin NAME [keep]: begins a change; with keep, an interruption brings back the present data set
begin() {
    if [ -n "${2:-}" ] && [ -f "$CONF/$1.conf" ]; then
        rm -rf "$UNDO/.new" "$UNDO/.done"
        mkdir -p "$UNDO/.new" || return 1
        for file in "$UNITS/$(unit "$1" mount)" "$UNITS/$(unit "$1" automount)" "$(credentials "$1")" "$CONF/$1.conf"; do
            [ ! -f "$file" ] || ln "$file" "$UNDO/.new" || return 1
        done
        # The file system keeps the order of renames: this one is on the disk before the first of the change.
        mv -T "$UNDO/.new" "$UNDO/$1" || return 1
    else
        mkdir -p "$UNDO/$1" || return 1
    fi
    undo=$1
}

# settled NAME: the change is complete
settled() {
    undo=
    rmdir "$UNDO/$1" 2>/dev/null || mv -T "$UNDO/$1" "$UNDO/.done"
    sync "$UNDO"
    [ ! -d "$UNDO/.done" ] || rm -rf "$UNDO/.done"
}

# put_back NAME: undoes the change. It copies by links, and so can itself be interrupted and begun again.
put_back() {
    discard "$1"
    if [ -f "$UNDO/$1/$1.conf" ]; then
        mkdir -p "$ROOT$DATA/$1"
        [ ! -f "$UNDO/$1/$1.credentials" ] || ln -f "$UNDO/$1/$1.credentials" "$CONF"
        ln -f "$UNDO/$1"/*mount "$UNITS"
        switch_on "$1"
        ln -f "$UNDO/$1/$1.conf" "$CONF"
    fi
    settled "$1"
}
