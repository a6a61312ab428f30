# shellcheck shell=sh disable=SC2034,SC2154  # variables are shared with settings-boot
# Where settings-boot finds a settings file. Sourced by settings-boot.
#
# Each function sets source, writes the file to $text, and fails when it has found nothing. What a person
# must know although nothing was found goes to `hint`, and so to the banner.

fw_cfg=$ROOT/sys/firmware/qemu_fw_cfg/by_name/opt/org.opendap.hyrax/settings/raw

# take FILE: copies a plain file, at most $MOST bytes of it
take() { [ -f "$1" ] && [ ! -L "$1" ] && head -c "$MOST" "$1" >"$text"; }

# from_disk: hyrax.toml on any FAT or ISO 9660 disk, whatever its label
from_disk() { on_disks take_settings; }

# from_cidata: a disk of NoCloud, which Proxmox, virt-install and multipass write
from_cidata() { on_disks take_cidata; }

# on_disks FUNCTION: calls it for each such disk, mounted at $work/disk, until it succeeds
on_disks() {
    if [ ! -e "$work/disks" ]; then
        # It returns when udev has looked at all disks: on a slow processor that takes most of a minute.
        udevadm settle --timeout=90
        lsblk --raw --noheadings --paths --output NAME,FSTYPE,LABEL >"$work/disks"
        mkdir "$work/disk"
    fi
    while read -r device kind label; do
        case $kind:$label in
        vfat:HYRAX-ESP) continue ;;
        vfat:* | iso9660:*) ;;
        *) continue ;;
        esac
        mount -t "$kind" -o ro,nosuid,nodev,noexec "$device" "$work/disk" 2>/dev/null || continue
        "$1"
        found=$?
        umount "$work/disk"
        [ "$found" -ne 0 ] || return 0
    done <"$work/disks"
    return 1
}

take_settings() {
    source='the settings disk'
    # ISO 9660 and FAT may show the name in capital letters; Windows may hide the end of another one.
    for each in "$work/disk"/*; do
        case ${each##*/} in
        [Hh][Yy][Rr][Aa][Xx].[Tt][Oo][Mm][Ll]) take "$each" && return ;;
        [Hh][Yy][Rr][Aa][Xx]*.[Tt][Oo][Mm][Ll]*) hint "$source: its file must be called hyrax.toml, not $(plain "${each##*/}")" ;;
        esac
    done
    [ "$label" != HYRAX ] || [ -s "$hints" ] || hint "$source: it holds no file hyrax.toml"
    return 1
}

take_cidata() {
    [ "$(lower "$label")" = cidata ] || return 1
    source='the cidata disk'
    # What is applied only once is the disk: a hash that is made of a password differs each time.
    for each in meta-data user-data network-config; do
        [ ! -f "$work/disk/$each" ] || head -c "$MOST" "$work/disk/$each"
    done >"$work/raw"
    "$LIB/cidata-settings" "$work/disk" >"$text" 2>"$work/said"
    while IFS= read -r words; do hint "$source: $words"; done <"$work/said"
}

from_fw_cfg() {
    source=fw_cfg
    [ -e "$fw_cfg" ] || modprobe -q qemu_fw_cfg 2>/dev/null
    [ -e "$fw_cfg" ] && head -c "$MOST" "$fw_cfg" >"$text"
}

# info KEY FILE: writes VMware's guestinfo.KEY to FILE; fails when it is empty or blanked
info() { vmware "info-get guestinfo.$1" >"$2" && [ -s "$2" ] && [ "$(head -c 4 "$2")" != --- ]; }
vmware() { timeout 10 vmtoolsd --cmd "$1" 2>/dev/null; }

# Every process of the VM can read and write guestinfo. So it is taken at the first boot only (a copy of
# the VM has another UUID), and blanked.
from_vmware() {
    [ "$(systemd-detect-virt)" = vmware ] || return 1
    uuid=$(cat "$ROOT/sys/class/dmi/id/product_uuid" 2>/dev/null)
    if [ "${uuid:-none}" = "$(cat "$STATE/guestinfo.taken" 2>/dev/null)" ]; then
        taken_from_vmware
        return 1
    fi
    source=guestinfo
    if info hyrax.settings "$work/info"; then
        info hyrax.settings.encoding "$work/encoding"
        case $(cat "$work/encoding") in
        base64 | b64) base64 --decode --ignore-garbage "$work/info" | head -c "$MOST" >"$text" ;;
        *) head -c "$MOST" "$work/info" >"$text" ;;
        esac
    else
        source='the OVF properties'
        if ! { info ovfEnv "$work/info" && "$LIB/ovf-settings" <"$work/info" >"$text" && [ -s "$text" ]; }; then
            taken_from_vmware
            return 1
        fi
    fi
    from_where=vmware
}

# taken_from_vmware: from now on guestinfo does not count. vSphere writes the OVF properties at each start.
taken_from_vmware() {
    [ "${uuid:-none}" = "$(cat "$STATE/guestinfo.taken" 2>/dev/null)" ] ||
        say "${uuid:-none}" | write_file "$STATE/guestinfo.taken"
    for key in hyrax.settings ovfEnv; do
        info "$key" "$work/info" || continue
        vmware "info-set guestinfo.$key ---" >/dev/null ||
            hint "guestinfo: every program of this VM can read guestinfo.$key; remove it from the VM's settings"
    done
}

from_file() {
    source=/etc/hyrax/hyrax.toml
    take "$ROOT$source"
}
