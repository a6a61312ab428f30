"""Stage `server`: a DAP server from an OCI image."""
