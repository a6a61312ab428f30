# shellcheck shell=sh disable=SC2154  # variables are shared with hyrax-server
# hyrax-server https: its help, and what it shows. Sourced by server-https.sh.

https_help() {
    cat <<END_OF_HELP
hyrax-server https: HTTPS on port 443; port 8080 stays as it is

  hyrax-server https [--json]        show what is set, and until when
  hyrax-server https --cert FILE --key FILE
                                     a certificate that you have (PEM; the
                                     issuers' certificates after its own)
  hyrax-server https --self-signed   make one; readers must be given it
  hyrax-server https --acme DOMAIN --email ADDRESS
                                     get one from Let's Encrypt, and renew it;
                                     port 80 of DOMAIN must lead here
  hyrax-server https renew           try to renew it now (ACME)
  hyrax-server https off             undo all of it

Options:
  --host NAME      the name that readers use, if this VM does not know it
  --redirect       send readers of port 8080 to HTTPS; --no-redirect undoes it
  --directory URL  another ACME server than Let's Encrypt
  --later          keep the settings, and get the certificate in some minutes
  --check          only check the command line
END_OF_HELP
}

fingerprint() { openssl x509 -noout -fingerprint -sha256 -in "$HTTPS_PEM" | cut -d = -f 2; }

https_show() {
    [ -d "$HTTPS" ] || {
        if [ -n "$json" ]; then json_object method:text ''; else say "HTTPS is off; see: hyrax-server https --help"; fi
        return 0
    }
    problem=$(certificate_state)
    if [ -n "$json" ]; then
        ends='' days='' print=''
        ! https_is_on || { ends=$(certificate_date "$HTTPS_PEM") days=$(certificate_days "$HTTPS_PEM") print=$(fingerprint); }
        redirect=$(https_value REDIRECT)
        json_object method "$(https_value METHOD)" url "$(https_url)" redirect:flag "${redirect#no}" \
            ends:text "$ends" days:number "$days" fingerprint:text "$print" problem:text "$problem"
        return
    fi
    ! https_is_on || https_told
    [ -z "$problem" ] || say "  ! $problem"
}

# https_told: says what is set, and how readers trust it
https_told() {
    if [ -n "$json" ]; then
        https_show
        return
    fi
    say "HTTPS is on: $(https_url), certificate until $(certificate_date "$HTTPS_PEM") ($(https_value METHOD))"
    [ "$(https_value REDIRECT)" != yes ] || say "Port $PORT sends readers there."
    [ "$(https_value METHOD)" = self-signed ] || return 0
    address=$(url_host "$(https_value HOST)")
    cat <<END_OF_TRUST
Its fingerprint (SHA-256):
  $(fingerprint)
Readers fetch the certificate once, compare the fingerprint, and keep the file:
  openssl s_client -connect $address:$HTTPS_PORT </dev/null | openssl x509 >hyrax-vm.pem
  openssl x509 -noout -fingerprint -sha256 -in hyrax-vm.pem
Then their programs trust it:
  netCDF-C (ncdump, ncdf4 of R): a line in ~/.ncrc
                 HTTP.SSL.CAINFO=/path/of/hyrax-vm.pem
  Python (netCDF4, xarray)
                 netCDF4.rc_set("HTTP.SSL.CAINFO", "/path/of/hyrax-vm.pem")
  Python (pydap) export REQUESTS_CA_BUNDLE=/path/of/hyrax-vm.pem
  R (httr)       httr::set_config(httr::config(cainfo = "/path/of/hyrax-vm.pem"))
  curl           curl --cacert /path/of/hyrax-vm.pem
END_OF_TRUST
}
