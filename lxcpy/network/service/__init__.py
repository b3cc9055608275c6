"""The lxcpy-net service: the bridge that containers hang on, with addresses, forwarding, NAT, DHCP and DNS."""
