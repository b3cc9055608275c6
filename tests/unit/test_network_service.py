"""The settings of lxcpy-net, its rules and dnsmasq's command line, without a kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxcpy.errors import NetworkError, Origin
from lxcpy.network.service import dnsmasq, firewall
from lxcpy.network.service.settings import Settings, ipv6_prefix, load, words


def loaded(folder: Path, *texts: str) -> Settings:
    files = []
    for number, text in enumerate(texts):
        (folder / str(number)).write_text(text)
        files.append(str(folder / str(number)))
    (folder / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return load(tuple(files), str(folder / "machine-id"))


def test_defaults_without_any_file(tmp_path: Path) -> None:
    settings = load((str(tmp_path / "none"),), str(tmp_path / "none"))
    assert (settings.use, settings.bridge, settings.addr, settings.length) == (True, "lxcbr0", "10.0.3.1", 24)
    assert settings.ipv6 and settings.ipv6_addr.startswith("fd") and settings.ipv6_network.endswith("::/64")


def test_files_as_debian_ships_them(tmp_path: Path) -> None:
    first = """\
# LXC_AUTO - whether or not to start containers at boot
LXC_AUTO="true"
BOOTGROUPS="onboot,"
OPTIONS=
STOPOPTS="-a -A -s"

USE_LXC_BRIDGE="false"  # overridden in lxc-net

[ ! -f /etc/default/lxc-net ] || . /etc/default/lxc-net
"""
    assert loaded(tmp_path, first).use is False
    assert loaded(tmp_path, first, 'USE_LXC_BRIDGE="true"\n').use is True


def test_values_and_references(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        "export LXC_BRIDGE='virbr7' ; :\nNET=10.9.0\nLXC_ADDR=\"$NET.1\"\nLXC_NETWORK=${NET}.0/16\n"
        'LXC_NETMASK=255.255.0.0\nLXC_DHCP_RANGE=$NET.2,$NET.9 # few\nLXC_DHCP_PING=false\nLXC_USE_NFT="false"\n'
        "LXC_DOMAIN=lxc\n  LXC_IPV6_ENABLE=no\nOTHER=$(date)\n",
    )
    assert settings.bridge == "virbr7"
    assert (settings.addr, settings.network, settings.length) == ("10.9.0.1", "10.9.0.0/16", 16)
    assert settings.dhcp_range == "10.9.0.2,10.9.0.9"
    assert (settings.dhcp_ping, settings.use_nft, settings.domain, settings.ipv6) == (False, False, "lxc", False)


def test_ipv6_mask_changes_the_network(tmp_path: Path) -> None:
    assert loaded(tmp_path, "LXC_IPV6_MASK=80\n").ipv6_network.endswith("::/80")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("a b", "a"),
        ("a;b", "a"),
        ("a#b #c", "a#b"),
        ("'a b'\"c d\"e", "a bc de"),
        (r"a\ b", "a b"),
        (r'"a\"b\z"', r'a"b\z'),
        (r"'a\b'", r"a\b"),
        ('"$A-${A}"', "x-x"),
        ("'$A'", "$A"),
        ("$MISSING.", "."),
    ],
)
def test_shell_words(text: str, value: str) -> None:
    assert words(text, {"A": "x"}) == value


@pytest.mark.parametrize("text", ["$(date)", "`date`", "${A:-b}", '"open', "'open"])
def test_what_only_a_shell_can_tell(text: str) -> None:
    with pytest.raises(ValueError):
        words(text, {})


def refused(folder: Path, text: str) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        loaded(folder, text)
    return caught.value


def test_a_value_that_needs_a_shell_names_its_line(tmp_path: Path) -> None:
    error = refused(tmp_path, "# one\nLXC_ADDR=$(cat /etc/addr)\n")
    assert error.what == "LXC_ADDR: $(cat /etc/addr) needs a shell"
    assert error.at == Origin(str(tmp_path / "0"), 2)
    assert error.hint == "write the value itself; the file is not run"


@pytest.mark.parametrize(
    "line",
    [
        "LXC_ADDR=10.0.3",
        "LXC_NETMASK=255.0.255.0",
        "LXC_NETWORK=10.0.3.0/33",
        "LXC_BRIDGE=a-name-that-is-too-long",
        "LXC_BRIDGE=",
        "LXC_BRIDGE='br 0'",
        "LXC_DHCP_RANGE=some",
        "LXC_DHCP_MAX=many",
        "LXC_IPV6_ADDR=10.0.3.1",
        "LXC_IPV6_NETWORK=fd00::/200",
    ],
)
def test_bad_values(tmp_path: Path, line: str) -> None:
    error = refused(tmp_path, line + "\n")
    name, _, value = line.partition("=")
    assert error.what.startswith(f'{name}: "{value.strip(chr(39))}": ')
    assert error.at == Origin(str(tmp_path / "0"), 1)


def test_ipv6_prefix_is_the_machines_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n")
    (tmp_path / "b").write_text("2\n")
    first, second = ipv6_prefix(str(tmp_path / "a")), ipv6_prefix(str(tmp_path / "b"))
    assert first != second and first == ipv6_prefix(str(tmp_path / "a"))


def test_dnsmasq_command() -> None:
    settings = Settings(ipv6_addr="fd1::1", domain="lxc", dhcp_ping=False, dhcp_confile="/etc/d.conf")
    assert dnsmasq.command(settings, ipv6=True, user="dnsmasq", pid_file="/run/lxcpy/dnsmasq.pid") == [
        "dnsmasq", "--conf-file=/etc/d.conf", "-s", "lxc", "-S", "/lxc/", "--no-ping", "-u", "dnsmasq",
        "--strict-order",
        "--bind-interfaces", "--pid-file=/run/lxcpy/dnsmasq.pid", "--listen-address", "10.0.3.1", "--dhcp-range",
        "10.0.3.2,10.0.3.254", "--dhcp-lease-max=253", "--dhcp-no-override", "--except-interface=lo",
        "--interface=lxcbr0", "--dhcp-leasefile=/var/lib/misc/dnsmasq.lxcbr0.leases", "--dhcp-authoritative",
        "--dhcp-range=fd1::1,ra-only", "--listen-address", "fd1::1",
    ]  # fmt: skip
    assert "--conf-file=/dev/null" in dnsmasq.command(Settings(), ipv6=False, user="nobody", pid_file="/p")


def test_dnsmasq_user() -> None:
    assert dnsmasq.user(("no-such-user-1", "root", "nobody")) == "root"
    assert dnsmasq.user(("no-such-user-1", "no-such-user-2")) == "no-such-user-2"


def test_no_dnsmasq_where_the_pid_is_anothers(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    assert dnsmasq.running(str(tmp_path / "pid")) is None
    assert dnsmasq.running(str(tmp_path / "none")) is None


def test_nft_script() -> None:
    script = firewall.nft_script(Settings(ipv6_network="fd1::/64"), nat6=True)
    assert script.splitlines()[:2] == ["add table inet lxcpy", "flush table inet lxcpy"]
    assert "ip saddr 10.0.3.0/24 ip daddr != 10.0.3.0/24 counter masquerade" in script
    assert "ip6 saddr fd1::/64 ip6 daddr != fd1::/64 counter masquerade" in script
    assert "ip6 lxcpy" not in firewall.nft_script(Settings(), nat6=False)


def test_every_iptables_rule_can_be_deleted() -> None:
    for rule in [*firewall.iptables_rules(Settings(), nat6=True), firewall.checksum_rule(Settings())]:
        add, delete = (firewall.iptables_command(rule, wait=True, delete=delete) for delete in (False, True))
        assert add[1:4] == ["-w", "-t", rule[1]]
        assert [a for a, d in zip(add, delete, strict=True) if a != d] in (["-A"], ["-I"])
