#!/bin/sh
# All set-up and the main tasks of the project: sh tools/run.sh demo | test | lint
#
# demo  makes the environment .venv, installs, identifies the stack of sample_data/, writes demo_output/identify.png
# test  the same environment plus test tools and the system packages of the viewer tests, then lint and all tests
#
# PYTHON=/path/to/python chooses the interpreter (3.11 or newer), VENV=folder the environment.
# SADP_TEST_PROCESSES=4 runs the tests in so many processes (2 by default).
# SADP_SKIP_GUI=1 leaves the viewer tests out where their system packages cannot be had.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}

say() { printf '%s\n' "$*" >&2; }
die() { say "run.sh: $*"; exit 1; }

# Whether this user may install Debian packages, and with what in front
may_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    if [ "$(id -u)" = 0 ]; then SUDO=""; return 0; fi
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then SUDO="sudo"; return 0; fi
    return 1
}

# need_packages WHAT PACKAGE...: install what is missing, or say what is
need_packages() {
    what=$1; shift
    command -v dpkg-query >/dev/null 2>&1 || return 0 # not Debian or Ubuntu: the checks below will tell
    missing=""
    for package in "$@"; do
        # Ubuntu 24.04 renamed some libraries to NAMEt64
        dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if may_install; then
        say "installing for $what:$missing"
        $SUDO apt-get update -qq || say "apt-get update failed, trying with the old lists"
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive $SUDO apt-get install -y -qq --no-install-recommends $missing >/dev/null && return 0
    fi
    die "$what needs these system packages, and this user may not install them: sudo apt-get install$missing"
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

environment() { # environment STAMP PIP-ARGUMENT...
    stamp="$VENV/.$1"; shift
    if [ ! -x "$VENV/bin/python" ]; then
        if ! python=$(find_python); then
            need_packages "the environment" python3 python3-venv
            python=$(find_python) || die "Python 3.11 or newer is needed; found: $(python3 --version 2>&1 || echo none)"
        fi
        "$python" -c 'import ensurepip, venv' 2>/dev/null || need_packages "the environment" python3-venv
        say "making $VENV with $("$python" --version)"
        "$python" -m venv "$VENV"
    fi
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        say "installing (several minutes the first time; PyTorch is large)"
        "$VENV/bin/python" -m pip install -q --upgrade "pip>=25.1" # the first that knows dependency groups
        "$VENV/bin/python" -m pip install -q "$@"
        touch "$stamp"
    fi
}

demo() {
    environment installed -e .
    mkdir -p demo_output
    "$VENV/bin/napari-sadp" identify sample_data/three_zone_axes.hspy --picture demo_output/identify.png
    say "picture: demo_output/identify.png"
}

lint() {
    "$VENV/bin/ruff" check .
    "$VENV/bin/ruff" format --check .
}

tests() {
    environment installed-test -e . --group test
    lint
    # files of tests are shared among processes of one thread each
    OMP_NUM_THREADS=1; export OMP_NUM_THREADS
    set -- -n "${SADP_TEST_PROCESSES:-2}" --dist loadfile "$@"
    if [ "${SADP_SKIP_GUI:-0}" = 1 ]; then
        say "viewer tests left out (SADP_SKIP_GUI=1)"
        exec "$VENV/bin/python" -m pytest -m "not gui" "$@"
    fi
    need_packages "the viewer tests (or set SADP_SKIP_GUI=1 to leave them out)" \
        xvfb xauth libgl1 libegl1 libgl1-mesa-dri libdbus-1-3 libglib2.0-0 libfontconfig1 libxkbcommon-x11-0 libxcb-cursor0 \
        libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0
    command -v xvfb-run >/dev/null 2>&1 || die "xvfb-run is missing; install Xvfb, or set SADP_SKIP_GUI=1"
    exec xvfb-run -a -s "-screen 0 1600x1200x24" "$VENV/bin/python" -m pytest "$@"
}

case "${1:-}" in
    demo) demo ;;
    test) shift; tests "$@" ;;
    lint) environment installed-test -e . --group test; lint ;;
    *) die "usage: sh tools/run.sh demo | test [pytest arguments] | lint" ;;
esac
