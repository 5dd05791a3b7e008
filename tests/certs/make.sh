#!/bin/sh
# Makes the certificates of the TLS tests again. They live 100 years, so this
# is needed only when their names or extensions must change.
#
#   ca.pem                 the one authority that the tests trust
#   localhost.{pem,key}    localhost, 127.0.0.1, ::1
#   other.{pem,key}        other.test (chosen by SNI, or as the wrong name)
#   client.{pem,key}       a client's certificate
set -eu
cd "$(dirname "$0")"
days=36500
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

key "$tmp/ca.key"
cat >"$tmp/ca.cnf" <<END
[req]
distinguished_name = dn
prompt = no
x509_extensions = ext
[dn]
CN = fastloop test authority
[ext]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
openssl req -new -x509 -days $days -key "$tmp/ca.key" \
    -config "$tmp/ca.cnf" -out ca.pem

leaf() { # name, subjectAltName, extendedKeyUsage
    key "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$tmp/$1.csr"
    cat >"$tmp/$1.ext" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $3
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $2
END
    openssl x509 -req -days $days -in "$tmp/$1.csr" -CA ca.pem \
        -CAkey "$tmp/ca.key" -CAcreateserial -CAserial "$tmp/serial" \
        -extfile "$tmp/$1.ext" -out "$1.pem"
}

leaf localhost DNS:localhost,IP:127.0.0.1,IP:::1 serverAuth
leaf other DNS:other.test serverAuth
leaf client DNS:client.test clientAuth
