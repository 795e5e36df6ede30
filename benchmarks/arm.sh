#!/usr/bin/env bash
# An ARM system with Python and the engines in a folder: a phone's processor, with half-precision arithmetic, emulated.
#
#     bash benchmarks/arm.sh build/arm
#
# needs Debian's debootstrap and qemu-user-static.  Nothing is installed outside the folder; FOLDER/python then runs a
# program as Python on that processor does.
set -euo pipefail
folder=$(realpath -m "$1")
pip="${PIP:-.venv/bin/pip}"
mkdir -p "$folder/root" "$folder/wheels" "$folder/site"
# The first stage alone: it fetches the packages and needs no ARM processor; they are then laid out by hand.
debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,libgomp1,libstdc++6 bookworm "$folder/root"
for package in "$folder"/root/var/cache/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$folder/root"
done
platforms=()
for version in 2_17 2_24 2_27 2_28 2_31 2_35; do
    platforms+=(--platform "manylinux_${version}_aarch64")
done
"$pip" download --quiet --no-deps --only-binary=:all: --python-version 3.11 "${platforms[@]}" \
    --constraint constraints.txt --dest "$folder/wheels" numpy ncnn mnn openvino
for wheel in "$folder"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$folder/site"
done
cat > "$folder/python" << END
#!/bin/sh
export PYTHONPATH="$folder/site" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
exec qemu-aarch64-static -cpu max -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python"
"$folder/python" -c 'import platform; print("Python", platform.python_version(), "on", platform.machine())'
