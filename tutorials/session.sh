# What the tutorials share: arguments, and a GRASS session in the shell that reads this file. Nothing to run.

# start DATA WORK SIZE: check the arguments, put GRASS and the four tools on the PATH.
start() {
    if [ $# -lt 2 ] || [ $# -gt 3 ]; then
        stop "Usage: $0 DATA WORK [quick|full]" \
            "DATA holds the scenes. WORK is a new directory for projects, patches, models, scores and pictures."
    fi
    size=${3:-quick}
    [ -d "$1" ] || stop "The scenes must be in a directory; '$1' is none. Give the one that holds them."
    [ ! -e "$2" ] || stop "A new directory is needed; '$2' exists. Choose another name, or remove it."
    [ "$size" = quick ] || [ "$size" = full ] || stop "The size is quick or full; '$size' was given."
    command -v grass >/dev/null || stop "GRASS is needed and 'grass' is not on the PATH."
    data=$(cd "$1" && pwd)
    mkdir -p "$2/bin"
    work=$(cd "$2" && pwd)
    _session
    cd "$work"
    echo "# size: $size" >results.txt
}

stop() {
    printf '%s\n' "$@" >&2
    exit 2
}

_session() {
    local root tool
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    for tool in v.sample.patches r.learn.deep.train r.learn.deep.predict r.learn.deep.evaluate; do
        [ ! -f "$root/$tool/$tool.py" ] || ln -s "$root/$tool/$tool.py" "$work/bin/$tool" # else they are installed
    done
    [ ! -d "$root/.venv/bin" ] || PATH=$root/.venv/bin:$PATH
    GISBASE=$(grass --config path)
    PATH=$work/bin:$PATH:$GISBASE/bin:$GISBASE/scripts:${GRASS_ADDON_BASE:-$HOME/.grass8/addons}/scripts
    LD_LIBRARY_PATH=$GISBASE/lib:${LD_LIBRARY_PATH:-}
    PYTHONPATH=$GISBASE/etc/python:${PYTHONPATH:-}
    GISRC=$work/gisrc
    GRASS_VERBOSE=0 # results, warnings and errors only
    GRASS_MESSAGE_FORMAT=plain
    export GISBASE PATH LD_LIBRARY_PATH PYTHONPATH GISRC GRASS_VERBOSE GRASS_MESSAGE_FORMAT
    unset GRASS_REGION WIND_OVERRIDE # of a session around this one
}

# new_project NAME FILE: a project with the coordinate system of a file; what follows runs in it, and is shown.
new_project() {
    { set +x; } 2>/dev/null
    grass -e -c "$2" "$work/$1" >"$work/$1.log" 2>&1 || stop "No project could be made from '$2'; see '$work/$1.log'."
    printf 'GISDBASE: %s\nLOCATION_NAME: %s\nMAPSET: PERMANENT\nGUI: text\n' "$work" "$1" >"$GISRC"
    PS4='$ '
    set -x
}

# number FILE TEXT: the number that follows a text where it first stands in what a tool has printed.
number() {
    { set +x; } 2>/dev/null
    awk -v text="$2" '
        (at = index($0, text)) { split(substr($0, at + length(text)), words, " "); print words[1]; found = 1; exit }
        END { if (!found) exit 1 }' "$1"
}

# of_map FILE MAP: what r.learn.deep.evaluate has printed on one of several maps.
of_map() {
    { set +x; } 2>/dev/null
    awk -v title="Map <$2>" 'index($0, "Map <") == 1 { on = index($0, title) == 1 } on' "$1"
}

# f1 FILE CLASS: F1 of a class in a classification report.
f1() {
    { set +x; } 2>/dev/null
    awk -v label="$2" 'NF > 5 && (index($0, " " label " ") || index($0, label " ") == 1) { print $(NF - 2); exit }' "$1"
}

# iou FILE: IoU of each class in a classification report, in the order of the classes.
iou() {
    { set +x; } 2>/dev/null
    awk '/ IoU +support/ { on = 1; next } on && NF < 6 { exit } on { print $(NF - 1) }' "$1" | paste -sd ' '
}

# result NAME NUMBER...: a line of the table of results, results.txt.
result() {
    { set +x; } 2>/dev/null
    printf '%-70s %s\n' "$1" "${*:2}" | tee -a "$work/results.txt"
    set -x
}

# picture NAME COLUMNS ROWS: the d.* commands that follow draw into NAME.png.
picture() {
    { set +x; } 2>/dev/null
    export GRASS_RENDER_IMMEDIATE=png GRASS_RENDER_FILE=$work/$1.png GRASS_RENDER_WIDTH=$2 GRASS_RENDER_HEIGHT=$3
    export GRASS_RENDER_FILE_READ=TRUE GRASS_RENDER_TRUECOLOR=FALSE
    rm -f "$GRASS_RENDER_FILE"
    set -x
}
