# Building programs of other projects from their Go modules.
# shellcheck shell=bash # sourced after lib.sh
#
# Each part lands in CACHE/NAME-VERSION with one rename, so that a killed run
# never leaves half a part, and a part that is there costs nothing.
#
# A build_NAME function is called in an empty scratch folder and puts its
# programs into the folder $1.

# Static programs: they run in any container and on any libc.
export CGO_ENABLED=0 GOWORK=off GOFLAGS='-trimpath -buildvcs=false -modcacherw'

# A line every ten seconds while the process $2 lives.
report() {
    local what=$1 pid=$2 begun=$SECONDS
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if (((SECONDS - begun) % 10 == 0 && SECONDS > begun)); then
            say "$what: building, $((SECONDS - begun)) s"
        fi
    done
}

# build_part NAME VERSION [WHAT]: WHAT is how messages call it.
build_part() {
    local name=$1 version=$2 what=${3:-$1 $2} dir work pid
    dir=$(part_dir "$name" "$version")
    [[ ! -d $dir ]] || return 0
    mkdir -p "$CACHE"

    # One builder at a time; a second run waits instead of doing it twice.
    exec 9>"$CACHE/.lock-$name"
    until flock --wait 10 9; do say "$what: another run is building it, waiting"; done
    if [[ ! -d $dir ]]; then
        rm -rf "$CACHE/.building-$name-"*
        work=$CACHE/.building-$name-$version
        mkdir -p "$work/out" "$work/scratch"
        say "$what: building"
        # Modules and objects (up to 8 GB) are of no use once the programs are there, and go with them.
        (
            export GOMODCACHE=$work/modules GOCACHE=$work/objects
            cd "$work/scratch" && "build_$name" "$work/out"
        ) >"$work/log" 2>&1 9>&- &
        pid=$!
        report "$what" "$pid"
        if ! wait "$pid"; then
            tail -n 20 "$work/log" >&2
            die "building $name $version failed; the whole log is $work/log"
        fi
        mv "$work/out" "$dir"
        rm -rf "$work"
        say "$what: built"
    fi
    exec 9>&-
}

# Buildah with a store of its own in the scratch folder: no daemon, no kernel mounts.
storage() { BUILDAH_ISOLATION=chroot buildah --storage-driver vfs --root "$PWD/.storage" --runroot "$PWD/.run" "$@"; }
