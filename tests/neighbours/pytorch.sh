#!/usr/bin/env bash
# An image with PyTorch for CPUs on the test cluster, in which a team's own script runs. It holds this machine's Python
# with the libraries that it loads, and PyTorch from its wheel without the half that is for GPUs.
#
#   pytorch.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What is installed without the rest that torch requires: 2.7 GB of NVIDIA's libraries. Its CPU half is linked with two.
PACKAGES=(
    "torch==$PYTORCH_VERSION" nvidia-cuda-cupti==13.0.85 nvidia-cuda-runtime==13.0.96
    filelock==3.20.0 fsspec==2025.10.0 jinja2==3.1.6 markupsafe==3.0.3 mpmath==1.3.0 networkx==3.4.2
    sympy==1.14.0 typing-extensions==4.15.0
)
# The half for GPUs.
CUDA_LIBRARIES=(libtorch_cuda libtorch_cuda_linalg libtorch_nvshmem libcaffe2_nvrtc libc10_cuda)
# Of Python's own library: what no program needs.
NOT_NEEDED=(test idlelib tkinter '_tkinter*' turtledemo lib2to3 ensurepip site-packages dist-packages 'config-*' __pycache__)

# install_torch SITE
install_torch() {
    local site=$1 lib=$1/torch/lib name
    python3 -m pip install --quiet --progress-bar off --no-cache-dir --no-compile --no-deps --only-binary=:all: \
        --target "$site" "${PACKAGES[@]}"
    mkdir cuda
    for name in "${CUDA_LIBRARIES[@]}"; do mv "$lib/$name.so" cuda/; done
    stand_in "$lib"
    rm -rf "$site"/torch/{bin/protoc*,bin/ptxas,include,share,test} "$site/nvidia/cu13/include"
    find "$site" \( -name '*.a' -o -name 'libnvperf*' -o -name 'libcheckpoint*' -o -name 'libpcsamplingutil*' \) -delete
}

# stand_in LIB: a library in the place of the half for GPUs. torch's Python half looks for its symbols, and some of
# NVIDIA's, when it is loaded: functions, of which on a machine without GPUs only those are called that count them, and
# types, whose names are asked for.
stand_in() {
    local lib=$1 name
    export LC_ALL=C
    nm --dynamic --undefined-only --format=posix "$lib"/*.so | awk 'NF > 1 {print $1}' | sort -u >wanted
    nm --dynamic --defined-only --format=posix cuda/*.so | awk 'NF > 1 {print $1, $2, $4}' | sort -u |
        join - wanted >symbols
    sed -n 's/^\(cuFile[A-Za-z]*\|cudnn[A-Z][A-Za-z]*\)\(@.*\)\?$/\1 T/p' wanted >>symbols
    awk '
        seen[$1]++ {next}
        /^_ZTI/ {
            printf ".data\n.balign 16\n.globl %s\n.type %s,@object\n", $1, $1
            printf "%s: .quad _ZTVN10__cxxabiv117__class_type_infoE+16, 1f\n1: .asciz \"%s\"\n", $1, substr($1, 5)
            next
        }
        $2 ~ /[TW]/ {
            # The one that is called on loading gives a place for a function of Python.
            answer = $1 ~ /get_gil_checker/ ? "lea place(%rip),%rax" : "xor %eax,%eax"
            printf ".text\n.globl %s\n.type %s,@function\n%s: %s\nret\n", $1, $1, $1, answer
            next
        }
        {printf ".bss\n.balign 16\n.globl %s\n.type %s,@object\n%s: .zero 0x%s\n", $1, $1, $1, $3}
        END {print ".bss\n.balign 16\nplace: .zero 16\n.section .note.GNU-stack,\"\",@progbits"}
    ' symbols >stand-in.s
    library "$lib/libtorch_cuda.so" stand-in.s
    # What is linked by name, and has nothing in it.
    : >empty.s
    echo 'libcudnn.so.9 {};' >versions
    library "$lib/libcudnn.so.9" empty.s -Wl,--version-script=versions
    for name in libc10_cuda.so libcufile.so.0 libtorch_global_deps.so; do library "$lib/$name" empty.s; done
}

# library FILE SOURCE FLAG...
library() { gcc -shared -nostdlib -Wl,-soname,"${1##*/}" "${@:3}" -o "$1" "$2"; }

# install_python ROOT: under /opt/python, where it finds its own library beside itself.
install_python() {
    local root=$1 library program version exclude=() name
    read -r library program version < <(python3 -c 'import os, sys, sysconfig
print(sysconfig.get_path("stdlib"), os.path.realpath(sys._base_executable), "%d.%d" % sys.version_info[:2])')
    for name in "${NOT_NEEDED[@]}"; do exclude+=("--exclude=$name"); done
    mkdir -p "$root/opt/python/bin" "$root/opt/python/lib/python$version"
    cp "$program" "$root/opt/python/bin/python$version"
    ln -s "python$version" "$root/opt/python/bin/python3"
    ln -s "python$version" "$root/opt/python/bin/python"
    tar -C "$library" "${exclude[@]}" -cf - . | tar -C "$root/opt/python/lib/python$version" --no-same-owner -xf -
}

# copy_libraries ROOT: what the programs and libraries below ROOT load of this machine, to where every loader looks.
copy_libraries() {
    local root=$1 file
    mkdir -p "$root/usr/lib" "$root/lib64"
    # It says of some that they load nothing, and fails then.
    find "$root" -type f \( -name '*.so*' -o -path '*/bin/python3*' \) -exec ldd {} + >all 2>/dev/null || :
    grep -v "=> $PWD" all >loaded
    if grep 'not found' loaded; then return 1; fi
    awk '/=> \//{print $3}' loaded | sort -u | while read -r file; do
        cp --dereference "$file" "$root/usr/lib/"
    done
    cp --dereference /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
}

build_pytorch() {
    local root=$PWD/root site=$PWD/root/opt/pytorch
    mkdir -p "$root"/{etc,tmp}
    chmod 1777 "$root/tmp"
    echo 'nonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin' >"$root/etc/passwd"
    echo 'nonroot:x:65532:' >"$root/etc/group"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    install_torch "$site"
    install_python "$root"
    copy_libraries "$root"
    # Nothing can be written beside it later, and to compile all of torch takes a while.
    python3 -m compileall -q -j 2 -s "$root" -p / --invalidation-mode unchecked-hash "$root/opt"
    sed -i '1s|.*|#!/opt/python/bin/python3|' "$site/bin/torchrun"
    make_image "$1" pytorch "$PYTORCH_VERSION" --env PATH=/opt/python/bin:/opt/pytorch/bin --env PYTHONPATH=/opt/pytorch
}

build_all() { build_part pytorch "$PYTORCH_VERSION"; }

up() {
    "$CLUSTER_DIR/load-image.sh" "$(part_dir pytorch "$PYTORCH_VERSION")"/*.tar
    say "pytorch $PYTORCH_VERSION is ready"
}

# An image runs nowhere by itself.
down() { :; }

run_command "$@"
