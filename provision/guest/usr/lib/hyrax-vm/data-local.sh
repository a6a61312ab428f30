# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with hyrax-data
# hyrax-data: data on the VM's own disk, folders in /srv/hyrax/data. Sourced by hyrax-data.

# local_help: how to copy data to the disk
local_help() {
    cat <<END
  Data on this VM's own disk: every folder in $DATA is served.
  From another computer (type passwd here first: SSH then takes the password):
    scp -r FOLDER opendap@$(own_address):$DATA/
  From a USB stick that the hypervisor hands to this VM (lsblk shows its name):
    sudo mount -o ro /dev/sdb1 /mnt && cp -r /mnt/FOLDER $DATA/
END
}

local_add_help() { all_help; }

# odd_folders: warns of folders whose names cannot be a data set's; the server lists them all the same
odd_folders() {
    for folder in "$ROOT$DATA"/*; do
        each=${folder##*/}
        # Such a name is never a mount point: looking at the folder cannot hang.
        is_name "$each" || [ ! -d "$folder" ] || warn "the folder '$(plain "$each")' is not a data set; rename it, with letters, digits, . _ - only"
    done
}

# local_unreadable NAME: prints the first file or folder that the data server's user may not read
local_unreadable() {
    with_deadline 10 env --chdir=/ setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- \
        find "$ROOT$DATA/$1" \( -type d ! -executable -o ! -readable \) -print -quit 2>/dev/null >"$work/out"
    cat "$work/out"
}
