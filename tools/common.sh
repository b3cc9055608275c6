# Places, messages and package installation, shared by the scripts of this directory. Sourced by bash, as root.
# shellcheck shell=bash disable=SC2034

PREFIX=/opt/lxcpy                                   # the virtual environment and the data files
TEST_PREFIX=${LXCPY_TEST_VENV:-/opt/lxcpy-test}     # the tests' virtual environment
BIN=/usr/local/bin                                  # links to the commands
SHARE=/usr/local/share                              # man pages and completion
UNITS=/etc/systemd/system
MANIFEST=$PREFIX/installed                          # one line for each thing made outside PREFIX: KIND PATH
PACKAGES=$PREFIX/packages                           # distribution packages that were not there before
ROOTFS_MOUNT=/usr/lib/lxcpy/rootfs                  # lxc.rootfs.mount's default
CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

step=0
say() {
    step=$((step + 1))
    printf '\n[%d] %s\n' "$step" "$*"
}

note() { printf '    %s\n' "$*"; }

die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    [ $# -lt 2 ] || printf '  hint: %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root" "sudo tools/$(basename "$0")"
    umask 022
    export DEBIAN_FRONTEND=noninteractive
}

# quietly WHAT COMMAND...: run it with its output kept aside, shown when it fails.
quietly() {
    local what=$1 log
    shift
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        die "$what failed"
    fi
    rm -f "$log"
}

# The first interpreter that is new enough, the distribution's own before all others.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need_packages NAME...: install what is missing, say what that is. A name that ends in ? may be unknown here.
need_packages() {
    local name missing=() optional=()
    command -v apt-get >/dev/null || {
        note "no apt-get here: make sure that these are installed: ${*//\?/}"
        return 0
    }
    for name in "$@"; do
        installed "${name%\?}" && continue
        if [ "$name" = "${name%\?}" ]; then missing+=("$name"); else optional+=("${name%\?}"); fi
    done
    if [ $((${#missing[@]} + ${#optional[@]})) = 0 ]; then
        note "nothing is missing"
        return 0
    fi
    quietly "apt-get update" apt-get -q -o DPkg::Lock::Timeout=300 update
    for name in "${optional[@]}"; do
        if apt-cache show "$name" >/dev/null 2>&1; then missing+=("$name"); else note "not available here: $name"; fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    note "apt-get install ${missing[*]}"
    quietly "apt-get install" apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}"
    if [ -d "$PREFIX" ]; then printf '%s\n' "${missing[@]}" >>"$PACKAGES"; fi
}

# make_venv DIRECTORY PYTHON: a virtual environment, kept where it already has that interpreter.
make_venv() {
    if [ "$("$1/bin/python3" -I -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)" = \
        "$("$2" -I -c 'import sys; print(sys.version_info[:2])')" ] && [ -x "$1/bin/pip" ]; then
        note "$1 is there"
        return
    fi
    quietly "making $1" "$2" -m venv --clear "$1"
    note "$1, with $("$2" -V)"
}

# record KIND PATH: note once that uninstall has to remove it.
record() {
    touch "$MANIFEST"
    grep -qxF "$1 $2" "$MANIFEST" || printf '%s %s\n' "$1" "$2" >>"$MANIFEST"
}

# make_directory PATH: with its parents; each that was not there is taken away by uninstall.
make_directory() {
    [ ! -d "$1" ] || return 0
    make_directory "$(dirname "$1")"
    mkdir "$1"
    record directory "$1"
}

# link TARGET PATH: a link of ours; a file of somebody else's is left alone.
link() {
    if [ -e "$2" ] && [ ! -L "$2" ]; then die "$2 exists and is not ours" "move it away and run this again"; fi
    make_directory "$(dirname "$2")"
    ln -sfn "$1" "$2"
    record link "$2"
}

runs_systemd() { [ -d /run/systemd/system ]; }
