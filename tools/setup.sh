#!/bin/bash
# Set up what "make demo" (setup.sh demo) or "make check" (setup.sh check) needs, and only what is missing:
# Debian packages with apt, Python packages with pip in .venv. Run again it finds everything there in a second,
# without network. GRASS comes from the system; the interpreter of .venv is the system's own and sees its packages,
# so that one interpreter has GRASS, wxPython and PyTorch.

set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-}
case $purpose in
    demo) requirements="requirements.txt" ;;
    check) requirements="requirements.txt requirements-check.txt" ;;
    *) echo "usage: tools/setup.sh demo|check" >&2; exit 2 ;;
esac

venv=.venv
python=/usr/bin/python3

fail() {
    echo "setup: $*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# The first (head) or last (tail) line of a log that names an error. Of an exception that pip did not foresee (a broken
# download, say) only the last line of the traceback tells something.
reason() {
    line=$(grep -E "^(E:|ERROR:)" "$1" | grep -v "^ERROR: Exception:" | "$2" -n 1) || true
    echo "${line:-$("$2" -n 1 "$1")}"
}

# Names of Debian packages for what is missing. The thing itself is looked for, not the package: a GRASS that was
# compiled by hand is as good.
missing_packages() {
    have grass || echo grass-core
    "$python" -c "import ensurepip, venv" 2>/dev/null || echo python3-venv
    [ "$purpose" = check ] || return 0
    gisbase=$(grass --config path 2>/dev/null) || gisbase=/nowhere
    [ -f "$gisbase/include/Make/Script.make" ] || echo grass-dev
    [ -f "$gisbase/gui/wxpython/gui_core/forms.py" ] || echo grass-gui
    "$python" -c "import wx" 2>/dev/null || echo python3-wxgtk4.0
    # g.extension asks for these: six and svn for GRASS 8.2, git for newer ones, gcc for all
    "$python" -c "import six" 2>/dev/null || echo python3-six
    have svn || echo subversion
    have git || echo git
    have gcc || echo gcc
    have make || echo make
    have Xvfb || echo xvfb
    have xdotool || echo xdotool
    have import || echo imagemagick
}

install_packages() {
    have apt-get || fail "these programs or packages are missing, named as in Debian: $*. Install them, then run again."
    as_root=
    if [ "$(id -u)" != 0 ]; then
        have sudo || fail "these packages are missing: $*. Install them as root (apt-get install $*), then run again."
        as_root=sudo
    fi
    echo "setup: installing with apt: $*"
    log=$(mktemp)
    if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
        fail "apt could not install $*: $(reason "$log" head). Network is needed once; all of its output is in $log."
    fi
    rm -f "$log"
}

# A venv whose interpreter is gone or of another version (after an upgrade of the system) is made again.
make_venv() {
    if [ -x $venv/bin/python ] && $venv/bin/python -m pip --version >/dev/null 2>&1; then
        return
    fi
    rm -rf $venv
    "$python" -m venv --system-site-packages $venv || fail "$python could not make the virtual environment $venv."
}

pip_install() {
    # Not /tmp: it is memory on Debian 13, too small for the wheels of PyTorch.
    mkdir -p $venv/tmp
    # shellcheck disable=SC2046,SC2086
    TMPDIR=$PWD/$venv/tmp $venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
        $(printf -- "--requirement %s " $requirements) >$venv/pip.log 2>&1 </dev/null
}

# Done once for each content of the requirements and each interpreter; the stamp says which. Tried again when it fails:
# pip does not take up a download that broke half-way, and these are gigabytes.
install_requirements() {
    stamp=$venv/.setup-$purpose
    state=$({ "$python" --version; cat $requirements; } | sha256sum)
    [ "$(cat $stamp 2>/dev/null)" != "$state" ] || return 0
    echo "setup: installing Python packages into $venv (the first time some minutes and 6 GB: PyTorch is large)"
    for pause in 5 30 stop; do
        if pip_install; then
            rm -rf $venv/tmp
            echo "$state" >$stamp
            return
        fi
        rm -rf $venv/tmp
        cause=$(reason $venv/pip.log tail)
        [ $pause != stop ] || break
        echo "setup: pip stopped ($cause); trying again in $pause seconds"
        sleep $pause
    done
    free=$(df --output=avail --block-size=1G . | tail -n 1)
    fail "pip could not install $requirements: $cause. Network and some 12 GB of disk are needed once ($((free)) GB are" \
        "free here); all of its output is in $venv/pip.log."
}

packages=$(missing_packages)
if [ -n "$packages" ]; then
    # shellcheck disable=SC2086
    install_packages $packages
    packages=$(missing_packages)
    [ -z "$packages" ] || fail "apt went well, and still these are missing: $packages"
fi
[ -x "$python" ] || fail "$python is missing. Install python3."
"$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" || fail "Python 3.11 is needed; $python is older."
make_venv
install_requirements
