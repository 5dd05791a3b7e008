"""Reasons of an ssl.SSLError that depend on the version of OpenSSL."""

#: A record that cannot be decrypted.  ssl names the last error of OpenSSL's
#: queue, and newer versions (3.6.5 does) add the second one.
BAD_RECORD = ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE")
