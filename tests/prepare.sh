# Functions that test scripts share. They are called in the directory whose package-lock.json or requirements.txt is meant.
# shellcheck shell=bash

root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")

# Prints the path of the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
server_binary() {
    local place
    for place in "${CORECAST_BIN:-}" "$root"/target/{release-test,release,debug}/corecast; do
        if [ -n "$place" ] && [ -x "$place" ]; then
            realpath "$place"
            return
        fi
    done
    echo "no corecast binary: run cargo build, or say where it is in CORECAST_BIN" >&2
    return 1
}

# Installs packages of the system.
install_packages() { # names
    local as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get -o Acquire::Retries=5 update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get -o Acquire::Retries=5 install -y -qq --no-install-recommends "$@" >/dev/null
}

has_node() {
    command -v node >/dev/null && command -v npm >/dev/null
}

has_python() {
    python3 -c 'import venv, ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# Installs the modules of package-lock.json, unless they are those of the same list.
install_node_modules() { # where to; `.` is here
    if ! cmp -s package-lock.json "$1/node_modules/.installed.json"; then
        mkdir -p "$1"
        [ "$1" = . ] || cp package.json package-lock.json "$1"
        (cd "$1" && npm ci --fetch-retries=5 --loglevel=error --no-audit --no-fund >/dev/null)
        cp package-lock.json "$1/node_modules/.installed.json"
    fi
}

# Installs the packages of requirements.txt in a virtual environment, unless they are those of the same list.
install_python_packages() { # the environment
    if ! cmp -s requirements.txt "$1/installed.txt"; then
        rm -rf "$1"
        python3 -m venv "$1"
        "$1/bin/pip" install --retries 10 --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt "$1/installed.txt"
    fi
}
