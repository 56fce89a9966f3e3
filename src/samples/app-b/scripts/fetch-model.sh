#!/bin/sh
# Fetches the model while the image is built, and keeps it only if it is the one that was asked for.
#
# usage: fetch-model.sh URL SHA256 FILE
set -eu

url=${1:-}
sha256=${2:-}
file=${3:-}

refuse() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 2
}

[ -n "$url" ] || refuse "MODEL_URL is not given" \
    "--build-arg MODEL_URL=https://… , the address of one version of the ONNX file"
[ -n "$sha256" ] || refuse "MODEL_SHA256 is not given" \
    "--build-arg MODEL_SHA256=… , what sha256sum prints for that file"
[ -n "$file" ] || refuse "no file is named" "fetch-model.sh URL SHA256 FILE"
case $sha256 in
*[!0-9a-f]*) refuse "MODEL_SHA256 is no SHA-256" "64 digits from 0-9 and a-f" ;;
esac
[ ${#sha256} -eq 64 ] || refuse "MODEL_SHA256 has ${#sha256} characters" "64 digits from 0-9 and a-f"

curl --fail --silent --show-error --location --retry 3 --max-time 1800 --output "$file.partial" "$url"
# Without --check, whose options differ between the tools of that name.
found=$(sha256sum "$file.partial" | cut -d ' ' -f 1)
if [ "$found" != "$sha256" ]; then
    rm -f "$file.partial"
    refuse "what $url holds has the SHA-256 $found, and MODEL_SHA256 is $sha256" \
        "compare the address and the sum with where the model is published"
fi
mv "$file.partial" "$file"
