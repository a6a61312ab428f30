"""Stage `provision`: the master disk, from one boot under Packer."""
