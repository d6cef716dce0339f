#!/bin/sh
# kit_hash.sh SOURCE HEADER: the hashes that qemu-patch/build.sh (series, flags) and guest/image.sh (recipe) write into the
# manifests of what they make, as macros.
set -eu
LC_ALL=C
export LC_ALL
hash() { sha256sum | cut -c1-64; }
{
    echo '#pragma once'
    echo "#define KIT_SERIES \"$(cd "$1/qemu-patch/patches" && cat -- *.patch | hash)\""
    echo "#define KIT_FLAGS \"$(cat "$1/qemu-patch/configure.flags" "$1/qemu-patch/devices.mak" | hash)\""
    echo "#define KIT_IMAGE \"$(cat "$1/collect/guest/init" "$1/collect/guest/image.sh" | hash)\""
} >"$2.new"
mv "$2.new" "$2"
